"""Who may use the operators' page: its own password, and no posts from other sites (docs/security.md)."""

import asyncio
import hmac
import time
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Message, Receive

from shared.domain.guessing import same
from shared.settings import Settings

TOKEN_LIVES = 12 * 3600
COOKIE = "redraft_ops"
"""It holds a pass (shared/domain/guessing.py)."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    # Not no-referrer: browsers would then send no origin with our own forms either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Line:
    """A request's connection while its password is checked: whether the client still waits, and what it sent meanwhile.

    A form that arrives during the wait is kept for the page that reads it, up to what a form of ours may hold.
    """

    KEPT_AT_MOST = 64 * 1024

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def gone(self) -> None:
        """Returns when the client has hung up."""
        kept = 0
        while kept <= self.KEPT_AT_MOST:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] == "http.disconnect":
                return
            kept += len(message.get("body", b""))
        await asyncio.Event().wait()  # more bytes stay in the connection, which reads no further

    async def receive(self) -> Message:
        """As the request's own `receive`, from its start."""
        return self._kept.popleft() if self._kept else await self._receive()


@dataclass(frozen=True, slots=True)
class Login:
    """Who uses the page. `acts`: with the password that may change something, not with the one that only looks."""

    user: str
    acts: bool


def login(config: Settings, given: tuple[str, str]) -> Login | None:
    """The login of this user and password, if there is one. The time it takes does not depend on how near they are."""
    user, password = given
    users = [config.ops_user, *filter(None, (name.strip() for name in config.ops_users.split(",")))]
    # Lists, and & instead of "and": every comparison is always made.
    known = any([same(user, one) for one in users])  # noqa: C419
    acts, looks = [bool(one) & same(password, one) for one in (config.ops_password, config.ops_read_password)]
    return Login(user, acts) if known & (acts | looks) else None


def from_here(request: Request) -> bool:
    """Whether a form was sent from our own pages, as far as the browser's own headers say."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Older browsers, and any over plain HTTP from another host than loopback.
    try:
        origin = urlsplit(request.headers.get("origin", "")).netloc
    except ValueError:  # such as a bracket that is not closed
        return False
    return origin.lower() == request.headers.get("host", "").lower() != ""


def token(config: Settings, path: str, now: float | None = None) -> str:
    """The token of a form: proof that one of our pages offered this act recently. Valid in all API processes."""
    at = int(time.time() if now is None else now)
    return f"{at}.{_signed(config, path, at)}"


def token_holds(config: Settings, path: str, given: str, now: float | None = None) -> bool:
    at, _, signed = given.partition(".")
    if not at.isascii() or not at.isdecimal() or len(at) > 15 or not signed.isascii():
        return False
    age = (time.time() if now is None else now) - int(at)
    return -60 <= age <= TOKEN_LIVES and hmac.compare_digest(signed, _signed(config, path, int(at)))


def _signed(config: Settings, path: str, at: int) -> str:
    whose = f"operators' page\0{config.ops_user}\0{config.ops_password}"
    key = sha256(whose.encode("utf-8", "surrogatepass")).digest()
    return hmac.new(key, f"{at}\0{path}".encode(), sha256).hexdigest()
