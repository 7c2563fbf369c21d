"""What every request and answer has, on every route: an X-Request-Id, HEAD beside GET, RateLimit headers.

Caches keep no answer, unless its route says otherwise: most answers are for the owner of a key alone. Browsers take an
answer for what its Content-Type says, and for nothing else.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import request_id
from shared.domain.ids import new_id

ANSWERS_CARRY = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of every answer that does not say otherwise."""
_SANE_ID = re.compile(rb"[A-Za-z0-9._~:@+/=-]{1,128}")

HEADERS = "redraft.headers"
"""The key in a request's ASGI scope of the list of headers that its answer carries, whatever the answer is."""


class RequestId:
    """ASGI middleware around the whole app. The request's id is the client's, if that is valid, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        chosen = sent if _SANE_ID.fullmatch(sent) else new_id("req").encode()
        request_id.set(chosen.decode())
        headers = scope[HEADERS] = [(b"x-request-id", chosen)]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.setdefault("headers", [])
                names = {name for name, _ in given}
                given.extend(one for one in ANSWERS_CARRY if one[0] not in names)
                given.extend(headers)
            await send(message)

        if scope["method"] != "HEAD":
            await self.app(scope, receive, with_headers)
            return

        async def bodiless(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {"type": "http.response.body", "more_body": message.get("more_body", False)}
            await with_headers(message)

        # HEAD is answered as GET without the body: with all headers, Content-Length too (RFC 9110, 9.3.2).
        await self.app({**scope, "method": "GET"}, receive, bodiless)
