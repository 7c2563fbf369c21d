"""Whether a request is Redraft's own: the ten lines that docs/services.md gives to those who write a service."""

import hmac
import time
from hashlib import sha256


def genuine(secret: str, header: str, body: bytes, now: float | None = None) -> bool:
    """Whether `header` (Redraft-Signature) signs this body under this secret, and is at most five minutes old."""
    parts = [part.partition("=") for part in header.split(",")]
    sent = next((value for name, _, value in parts if name == "t"), "")
    if not sent.isascii() or not sent.isdigit() or len(sent) > 12 or abs((now or time.time()) - int(sent)) > 300:
        return False
    expected = hmac.new(secret.encode(), sent.encode() + b"." + body, sha256).hexdigest().encode()
    return any(hmac.compare_digest(expected, value.encode()) for name, _, value in parts if name == "v1")
