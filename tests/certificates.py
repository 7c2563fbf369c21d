"""A certificate for 127.0.0.1 that no authority has signed, valid for a hundred years, and its key. For tests alone."""

from pathlib import Path
from typing import Final

CERTIFICATE: Final = """\
-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjYxMTMwMTI1NTQ5WhgPMjEyNjExMDYxMjU1NDlaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIFY42nYGF+WzorT
ehrJGVDDTMmbMm9iwIO1SRAcaHDHdOvgdji8UMwVRVlee5p6n2N+59lclw7C1tI/
czE8XZujZDBiMB0GA1UdDgQWBBTTI45d4l5fmvLibm+zrO0Zv55qPDAfBgNVHSME
GDAWgBTTI45d4l5fmvLibm+zrO0Zv55qPDAPBgNVHRMBAf8EBTADAQH/MA8GA1Ud
EQQIMAaHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIgZPkx2aYfM12KEgktsaligFPE
4hq+D1yxLfHlQIxqg+MCIQDDH7u75GrxlCCEZR9g15qIs+FymlBLgcAZTEBLJ6gY
ig==
-----END CERTIFICATE-----
"""
KEY: Final = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIC30Nmz2iNl1CWJA5e+WB1+njCp7XxoUgP74IWbaukHroAoGCCqGSM49
AwEHoUQDQgAEgVjjadgYX5bOitN6GskZUMNMyZsyb2LAg7VJEBxocMd06+B2OLxQ
zBVFWV57mnqfY37n2VyXDsLW0j9zMTxdmw==
-----END EC PRIVATE KEY-----
"""


def written(folder: Path) -> tuple[Path, Path]:
    """The files of certificate and key, in this folder."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return certificate, key
