# ruff: noqa: N818  -- as in shared/domain/errors.py
"""The errors that only the HTTP edge knows: of keys, methods, media types, sizes. Others: shared/domain/errors.py."""

from collections.abc import Iterable
from datetime import datetime

from shared.domain.errors import Detail, RedraftError
from shared.domain.times import format_instant


class Unauthenticated(RedraftError):
    """401, with `WWW-Authenticate: Bearer`. Says the same for a wrong key and a revoked one. `why`: what is wrong with
    the header, where it holds no key.
    """

    code = "unauthenticated"
    usual = "Invalid or missing API key"

    def __init__(self, why: str | None = None, message: str | None = None) -> None:
        super().__init__(message, details=[Detail("Authorization", why)] if why else ())


class Expired(Unauthenticated):
    """401: the key was valid until `at`. Only who holds its secret reads that."""

    def __init__(self, at: datetime) -> None:
        super().__init__(message=f"This API key expired at {format_instant(at)}; send a new one")


class Forbidden(RedraftError):
    """403: the key is good but lacks `scope`."""

    code = "forbidden"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key lacks the scope {scope}; use a key that has it")


class MethodNotAllowed(RedraftError):
    """405. `allowed`: the methods for the header `Allow`."""

    code = "method_not_allowed"

    def __init__(self, allowed: Iterable[str], advice: str | None = None) -> None:
        self.allowed = tuple(allowed)
        advice = advice or f"use {' or '.join(self.allowed) or 'another route'}"
        super().__init__(f"This route does not take that method; {advice}")


class PayloadTooLarge(RedraftError):
    """413. `limit` in bytes."""

    code = "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit:,} bytes; send a smaller one")


class UnsupportedMediaType(RedraftError):
    """415. `accepted`: media types, for `Accept-Patch` where the method is PATCH."""

    code = "unsupported_media_type"

    def __init__(self, accepted: Iterable[str]) -> None:
        self.accepted = tuple(accepted)
        super().__init__(f"Send the body with Content-Type {' or '.join(self.accepted)}")


class UnsupportedEncoding(RedraftError):
    """415 for a body with a Content-Encoding, with `Accept-Encoding: identity` (RFC 9110, 12.5.3)."""

    code = "unsupported_media_type"
    usual = "Send the body as it is, without Content-Encoding"
