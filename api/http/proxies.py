"""Behind a proxy: the client's own address in the ASGI scope, and addresses that hold where a prefix was stripped.

uvicorn has a middleware for the first, which is switched off (`--no-proxy-headers`): it trusts loopback by default, and
on a single machine every client is on loopback. REDRAFT_TRUSTED_PROXIES says which proxies are trusted. By default
none is.
"""

import re
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.domain import addresses

# Only our own templates have these bytes: in what they show of others, quotes are escaped.
_LINK: Final = re.compile(rb'((?:href|src|action)=")(?=/(?!/))')
_COOKIE: Final = re.compile(rb"(; path=)(?=/)", re.IGNORECASE)


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


class Prefixed:
    """ASGI middleware for an app behind a proxy that strips a prefix. `root`: the prefix, as `/redraft`.

    It stands before `Location`, the paths of cookies, and the links of pages. Pages arrive whole, as one message.
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app = app
        self.root = root.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page: Message | None = None

        async def prefixed(message: Message) -> None:
            nonlocal page
            if message["type"] == "http.response.start":
                message["headers"] = [(name, self._header(name, value)) for name, value in message["headers"]]
                if any(
                    name == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"]
                ):
                    # Its length is not known yet.
                    page = message
                    return
            elif page is not None:
                if not message.get("more_body"):
                    message["body"] = _LINK.sub(rb"\1" + self.root, message.get("body", b""))
                    length = str(len(message["body"])).encode()
                    page["headers"] = [(k, length if k == b"content-length" else v) for k, v in page["headers"]]
                await send(page)
                page = None
            await send(message)

        await self.app(scope, receive, prefixed if scope["type"] == "http" else send)

    def _header(self, name: bytes, value: bytes) -> bytes:
        if name == b"location" and value.startswith(b"/"):
            return self.root + value
        return _COOKIE.sub(rb"\1" + self.root, value) if name == b"set-cookie" else value


def behind(app: ASGIApp, trusted: str, root: str) -> ASGIApp:
    """`app` behind the proxies of `trusted` (REDRAFT_TRUSTED_PROXIES) that strip `root` (REDRAFT_ROOT_PATH); `app`
    itself where there are none.
    """
    if root:
        app = Prefixed(app, root)
    networks = addresses.networks(trusted)
    return Proxies(app, networks) if networks else app
