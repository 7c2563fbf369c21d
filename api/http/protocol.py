"""HTTP/1.1 on one connection: what differs from uvicorn's own protocol.

- Input that is no HTTP is answered with the API's JSON error too. The size of a head is bounded: before a head is
  complete, there is no request, no key and no rate limit that could apply.
- An offer to upgrade is declined, as RFC 9110, 7.8 allows: the request is answered as if it had not made the offer.
- A request is read when the one before it is answered and the peer has taken that answer. So a peer that sends many
  requests, or reads no answers, takes little of our memory.
- No state of a connection lasts without end (api/http/timeouts.py, docs/connections.md).
"""

import asyncio
from contextvars import Context

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http import connection_bounds, heads, timeouts
from api.http.expect_continue import closing_if_unread
from api.http.timeouts import BEHIND_UNREAD, ReadProgress, State, watch_of
from api.http.transport import LingeringTransport
from shared.domain.ids import new_id

log = structlog.get_logger(__name__)


class Protocol(HttpToolsProtocol):
    """One connection. `self.cycle` (uvicorn's) is the newest request, `_answering` the one that the app is serving."""

    transport: LingeringTransport
    _answering: RequestResponseCycle | None = None
    _in_head = False
    _head = 0  # bytes of the head that is being read
    _raw = 0  # bytes since the last head, framing included
    _body = 0  # bytes of the body among them
    _refused = False
    _dropped = 0
    _peer_closed = False  # the peer has closed its side
    _written = 0  # bytes that had been written at the last look
    _closing = False  # at the last look
    _since = 0.0  # when the connection came into the state that it is in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        lingering = LingeringTransport(transport, self._sends_on, unread=timeouts.LIMITS[State.UNREAD])
        super().connection_made(lingering)
        self._unparsed = bytearray()  # bytes that came after a request that is not answered yet
        self._progress = ReadProgress()
        self._since = self.loop.time()
        watch = watch_of(self.server_state)
        watch.start()
        if watch.full():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed.clear()
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # as asyncio has it
        """The peer closed its side. Whole requests that it sent before are still answered; half a request is not."""
        self._peer_closed = True
        return None if self.transport.is_closing() or not self._blocked() else True

    def shutdown(self) -> None:
        """At SIGTERM: requests under way are still answered.

        uvicorn tells the app only after that, and closes connections without an answer in the end. A PATCH that waits
        for a locked post would never hear that its edit is safe. So the app hears of it first, here.
        """
        on_shutdown = self.app_state.get("on_shutdown")
        if on_shutdown:
            on_shutdown()
        super().shutdown()

    # What is sent to us.

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._refused:
            self._drop(data)
        elif self._unparsed or self._blocked():
            self._keep(data)
        else:
            self._parse(data)

    def _drop(self, data: bytes) -> None:
        """Drop bytes that come after the last request of this connection."""
        self._dropped += len(data)
        if not self.transport.is_closing():
            self.flow.pause_reading()
        elif self._dropped > connection_bounds.LINGER_LIMIT:
            self.transport.abort()

    def _keep(self, data: bytes) -> None:
        self._unparsed += data
        if len(self._unparsed) > connection_bounds.READ_AHEAD:
            self.flow.pause_reading()

    def _blocked(self) -> bool:
        """Whether the next bytes must wait: for an answer that is not made yet, or for the peer to take it."""
        cycle = self.cycle
        return (
            (cycle is not None and not cycle.response_complete and not cycle.more_body)
            or bool(self.pipeline)
            or self.flow.write_paused
        )

    def _parse(self, data: bytes) -> None:
        for at in range(0, len(data), connection_bounds.PIECE):
            if at and self._blocked():
                self._keep(data[at:])
                return
            try:
                self._feed(data if len(data) <= connection_bounds.PIECE else data[at : at + connection_bounds.PIECE])
            except httptools.HttpParserError as error:
                self._refuse(
                    str(error.__context__)
                    if isinstance(error.__context__, heads.Refused)
                    else connection_bounds.NO_HTTP
                )
            if self._refused or self.transport.is_closing():
                return

    def _feed(self, piece: bytes) -> None:
        """Let the parser read at most PIECE bytes."""
        in_head = self._in_head
        rest = piece
        while rest:
            try:
                self.parser.feed_data(rest)
                rest = b""
            except httptools.HttpParserUpgrade as offered:
                # The parser stops at the end of this head. A new parser reads the head once more without the offer, and
                # then the body like any other.
                rest = self._without_upgrade() + rest[offered.args[0] :]
        if self._in_head:
            if not in_head:
                self._head, self._since = 0, self.loop.time()
            self._head += len(piece)
            if self._head > connection_bounds.HEAD_LIMIT:
                self._refuse(connection_bounds.TOO_LARGE)
        elif self.cycle is not None and self.cycle.more_body:
            self._raw += len(piece)
            if self._raw - self._body > connection_bounds.HEAD_LIMIT + connection_bounds.FRAMING_LIMIT * self._body:
                self._refuse(connection_bounds.TOO_MUCH_FRAMING)

    def _without_upgrade(self) -> bytes:
        """The head that was just read, without its offers to upgrade. Replaces the parser by a new one."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    # What the parser says of it.

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer is dropped: it must not be taken for a header (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)
        elif name.lower() == b"connection":
            # The parser would take "close" for the connection's end, and drop the next request without an answer.
            raise heads.Refused(heads.NO_TRAILER)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise heads.Refused(heads.NO_TUNNEL)
            return
        fault = heads.fault(self.parser.get_http_version(), self.headers)
        if fault is not None:
            raise heads.Refused(fault)
        self._head = self._raw = self._body = 0
        self._since = self.loop.time()
        # uvicorn takes the app from here.
        self.app = closing_if_unread(self.config.loaded_app) if self.expect_100_continue else self.config.loaded_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Clear `more_body`: uvicorn leaves it true if the answer came first; here it says if body is still to come."""
        if not self.parser.should_upgrade():
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # What is answered.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, in a context of its own: this is called in the context of the one before."""
        self.server_state.total_requests += 1
        self._since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline or self._unparsed or self._peer_closed:
            self.loop.call_soon(self._go_on, context=Context())
        else:
            self.flow.resume_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def _go_on(self) -> None:
        """Serve what waited until the answer before was made and taken."""
        if self.transport.is_closing() or self.flow.write_paused:
            return
        answered = self._answering is None or self._answering.response_complete
        if self.pipeline and answered:
            self._start_asgi_task(*self.pipeline.pop())
        if self._unparsed and not self._blocked():
            unparsed, self._unparsed = self._unparsed, bytearray()
            self._parse(bytes(unparsed))
        if self.transport.is_closing():
            return
        if self._peer_closed and not self._blocked():
            self.transport.close()
        elif len(self._unparsed) <= connection_bounds.READ_AHEAD and not self._refused:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  -- ours says what to do
        """Called for what the parser could not read."""
        self._refuse(connection_bounds.NO_HTTP)

    def _refuse(self, message: str) -> None:
        """Answer 400 in its turn, if the request has no answer yet, and close."""
        self._refused = True
        self._unparsed.clear()
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the refused request itself, whose app was not called
        last = self.pipeline[0][0] if self.pipeline else self._answering
        if last is not None and not (last.response_complete or last.more_body):
            # The requests before it get their own answers, and the last of these answers closes the connection.
            last.keep_alive = False
            self.flow.pause_reading()
            return
        if last is not None and last.more_body:
            last.disconnected = True
            last.message_event.set()
            if last.response_started:
                # The peer would take a second answer for the answer to another request.
                self.transport.close()
                return
        request_id = new_id("req")
        log.info("no_http", request_id=request_id, code=heads.CODE, why=message.partition(";")[0])
        self.transport.write(heads.refusal(message, request_id, self.server_state.default_headers))
        self.transport.close()

    def _sends_on(self) -> bool:
        """Whether the peer may still be sending something that is not read here any more."""
        unfinished = self.cycle is not None and self.cycle.more_body
        return not self._peer_closed and (self._refused or unfinished or bool(self._unparsed))

    # How long it takes (api/http/timeouts.py).

    def snapshot(self, now: float) -> tuple[State, float, int]:
        backlog, written = self.transport.backlog(), self.transport.written
        stalled = self._progress.stalled_for(written - backlog, backlog, now)
        state = self._state()
        if state is State.CLOSING and not self._closing:
            self._closing, self._since = True, now
        elif state in BEHIND_UNREAD and (stalled is not None or written != self._written):
            self._since = now
        self._written = written
        return (state, now - self._since, 0) if stalled is None else (State.UNREAD, stalled, backlog)

    def _state(self) -> State:
        if self.transport.is_closing():
            return State.CLOSING
        answering = self._answering is not None and not self._answering.response_complete
        if answering and not (self._answering is self.cycle and self.cycle.more_body):
            return State.ANSWERING
        if self.cycle is not None and self.cycle.more_body:
            return State.BODY
        return State.HEAD if self._in_head else State.IDLE

    def expire(self, state: State) -> None:
        if state is State.IDLE:
            self.transport.close()
        elif state is State.HEAD:
            self._refuse(connection_bounds.TOO_SLOW.format(seconds=timeouts.LIMITS[state]))
        else:
            self.transport.abort()
