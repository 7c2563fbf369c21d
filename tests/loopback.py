"""HTTP on loopback, as tests speak it: past the proxies of the environment, and without certificates.

httpx reads all of the certificates that it knows for each client, which takes 30 ms of CPU.
"""

import ssl
from typing import Any, Final

LOOPBACK: Final[dict[str, Any]] = {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
"""For `httpx.Client` and `httpx.get`."""
