"""Whether a request is Redraft's own: the ten lines that docs/services.md gives to those who write a service."""

import hmac
import time
from hashlib import sha256


def genuine(secret: str, header: str, body: bytes, now: float | None = None) -> bool:
    """Whether `header` (Redraft-Signature) was made of this body under this secret within the last five minutes."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    sent, signature = parts.get("t", ""), parts.get("v1", "")
    if not sent.isascii() or not sent.isdigit() or abs((now or time.time()) - int(sent)) > 300:
        return False
    expected = hmac.new(secret.encode(), sent.encode() + b"." + body, sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())
