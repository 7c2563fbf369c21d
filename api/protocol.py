"""HTTP itself, where uvicorn's own way is not ours: what is no HTTP gets the envelope too, and heads have bounds.

Before a head is complete there is no request, no key and no limit that could apply: its size and its time are bounded
here, or anybody could fill the memory or keep connections without end.
"""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import TypedDict

import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shared.ids import new_id

HEAD_LIMIT = 64 * 1024
HEAD_WITHIN = 20.0
FILES = 65_536

NO_HTTP = "This is no request that HTTP/1.1 allows; send a valid method, path, headers and framing of the body"
TOO_LARGE = f"The head of the request is larger than {HEAD_LIMIT:,} bytes; send fewer or shorter headers"
TOO_SLOW = f"The head of the request did not arrive within {HEAD_WITHIN:.0f} s; send it at once"

log = structlog.get_logger(__name__)


def allow_connections() -> None:
    """Each connection is an open file. Many systems let a process have 1,024 of them, some 256, where it does not ask
    for more: so few clients that say nothing would shut everybody else out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class State(TypedDict):
    """What the app tells this module at its start. `ends_soon`: to be called when the process is to end."""

    ends_soon: Callable[[], object]


class Protocol(HttpToolsProtocol):
    """One connection. `_head`: bytes of a head that came in several pieces; one in one piece costs no timer."""

    _in_head = True
    _head = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A connection that is never used is closed like one that is used no more."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """At SIGTERM: what is being answered is answered. uvicorn waits for that before it tells the app, and at last
        closes connections without an answer: a PATCH that waits for a held post would never hear that it is safe.
        """
        ends_soon = self.app_state.get("ends_soon")
        if ends_soon:
            ends_soon()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._head > HEAD_LIMIT:
                self._refuse(TOO_LARGE)
                return
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_WITHIN, self._refuse, TOO_SLOW)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        self._disarm()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  -- ours says what to do
        """What the parser could not read."""
        self._refuse(NO_HTTP)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, message: str) -> None:
        """Answer and close. A request before it on the same connection gets its own answer, and that is the last."""
        self._disarm()
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        request_id = new_id("req")
        log.info("no_http", request_id=request_id, why=message.partition(";")[0])
        body = to_json({"error": {"code": "invalid_request", "message": message, "requestId": request_id}})
        head = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % (name, value) for name, value in head)
        self.transport.write(STATUS_LINE[400] + lines + b"\r\n" + body)
        self.transport.close()
