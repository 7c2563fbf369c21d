"""Puts the client's own address where trusted proxies hide it: into the scope, so that all who look there agree.

uvicorn has a middleware for this, which is switched off (`--no-proxy-headers`): it trusts loopback unless told
otherwise, and on one machine everybody is on loopback. REDRAFT_TRUSTED_PROXIES says who is trusted; by default nobody.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.domain import addresses


class Proxies:
    """Around an app that trusts some proxies; what trusts none goes without."""

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
    """`app`, which sees its clients' own addresses where these proxies (REDRAFT_TRUSTED_PROXIES) stand before it."""
    networks = addresses.networks(trusted)
    return Proxies(app, networks) if networks else app
