"""Behind trusted proxies, puts the client's own address into the ASGI scope.

uvicorn has a middleware for this, which is switched off (`--no-proxy-headers`): it trusts loopback by default, and on a
single machine every client is on loopback. REDRAFT_TRUSTED_PROXIES says which proxies are trusted; by default none.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.domain import addresses


class Proxies:
    """ASGI middleware for an app with trusted proxies."""

    def __init__(self, app: ASGIApp, trusted: Sequence[addresses.Network]) -> None:
        self.app = app
        self.trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            peer, port = scope["client"]
            forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            address = addresses.client(peer, forwarded, self.trusted)
            scope["client"] = (address, port if address == peer else 0)
        await self.app(scope, receive, send)


def behind(app: ASGIApp, trusted: str) -> ASGIApp:
    """`app` behind the proxies of `trusted` (REDRAFT_TRUSTED_PROXIES), or `app` itself where there are none."""
    networks = addresses.networks(trusted)
    return Proxies(app, networks) if networks else app
