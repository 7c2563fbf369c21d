"""Who may use the operators' page: its own password, and no posts from other sites (SPEC 8, 9)."""

import binascii
import hmac
import time
from base64 import b64decode
from collections import OrderedDict, deque
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.requests import Request

from shared.settings import Settings

TOKEN_LIVES = 12 * 3600
WRONG_AT_MOST = 10
WITHIN = 60.0
ADDRESSES = 1000

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    # Not no-referrer: a browser would then name no origin with our own forms either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guesses:
    """Wrong passwords of late, by the address that they came from: ten a minute, then it has to wait."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def too_many(self, address: str, now: float) -> bool:
        times = self._wrong.get(address)
        while times and times[0] < now - WITHIN:
            times.popleft()
        return times is not None and len(times) >= WRONG_AT_MOST

    def wrong(self, address: str, now: float) -> None:
        self._wrong.setdefault(address, deque()).append(now)
        self._wrong.move_to_end(address)
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)


def credentials(request: Request) -> tuple[str, str] | None:
    """User and password of HTTP basic (RFC 7617), or None where there are none to be read."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def knows(config: Settings, given: tuple[str, str]) -> bool:
    """Whether these are the page's user and password; takes as long for a near miss as for any other."""
    right = (config.ops_user, config.ops_password)
    same = [hmac.compare_digest(_digest(one), _digest(other)) for one, other in zip(given, right, strict=True)]
    return all(same)


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def from_here(request: Request) -> bool:
    """Whether a form was sent from our own pages, as far as the browser's own headers say."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Older browsers, and any over plain HTTP from another host than loopback.
    return urlsplit(request.headers.get("origin", "")).netloc.lower() == request.headers.get("host", "").lower() != ""


def token(config: Settings, path: str, now: float | None = None) -> str:
    """What a form carries: that one of our pages offered this very act, lately. The same in all API processes."""
    at = int(time.time() if now is None else now)
    return f"{at}.{_signed(config, path, at)}"


def token_holds(config: Settings, path: str, given: str, now: float | None = None) -> bool:
    at, _, signed = given.partition(".")
    if not at.isascii() or not at.isdecimal() or len(at) > 15 or not signed.isascii():
        return False
    age = (time.time() if now is None else now) - int(at)
    return -60 <= age <= TOKEN_LIVES and hmac.compare_digest(signed, _signed(config, path, int(at)))


def _signed(config: Settings, path: str, at: int) -> str:
    key = _digest(f"operators' page\0{config.ops_user}\0{config.ops_password}")
    return hmac.new(key, f"{at}\0{path}".encode(), sha256).hexdigest()
