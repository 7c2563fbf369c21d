"""What every request and answer has, whatever route it takes: an X-Request-Id, HEAD beside GET, RateLimit (SPEC 4).

No answer is kept by a cache, unless its route says otherwise: most hold what only the owner of a key may see. And no
browser takes an answer for anything but what its Content-Type says.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import request_id
from shared.domain.ids import new_id

ANSWERS_CARRY = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of every answer that does not say otherwise."""
_SANE_ID = re.compile(rb"[A-Za-z0-9._~:@+/=-]{1,128}")

HEADERS = "redraft.headers"
"""Where in a request's scope stand the headers that its answer carries, whatever the answer is
(api/http/request_id.py).
"""


class Envelope:
    """Around the whole app. The request's id is the client's, if it sent one sane one, else a new one."""

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

        async def enveloped(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.setdefault("headers", [])
                names = {name for name, _ in given}
                given.extend(one for one in ANSWERS_CARRY if one[0] not in names)
                given.extend(headers)
            await send(message)

        if scope["method"] != "HEAD":
            await self.app(scope, receive, enveloped)
            return

        async def bodiless(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {"type": "http.response.body", "more_body": message.get("more_body", False)}
            await enveloped(message)

        # HEAD is GET without the body: what GET would say of the thing, its length too (RFC 9110, 9.3.2).
        await self.app({**scope, "method": "GET"}, receive, bodiless)
