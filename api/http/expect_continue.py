"""Expect: 100-continue, where the answer comes instead of the 100."""

from typing import TYPE_CHECKING

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def closing_if_unread(app: ASGI3Application) -> ASGI3Application:
    """The app, for a client that waits for 100 Continue before it sends its body.

    An app that answers without reading the body leaves open whether the body still comes. What comes next could be the
    body or a new request, so the connection is closed after the answer (RFC 9110, 10.1.1).
    """

    async def closing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        cycle: RequestResponseCycle = receive.__self__  # type: ignore[attr-defined]  # as uvicorn calls its app

        async def sending(message: ASGISendEvent) -> None:
            if cycle.waiting_for_100_continue and cycle.more_body:
                cycle.keep_alive = False
            await send(message)

        await app(scope, receive, sending)

    return closing
