"""One connection without a network: a test decides in which pieces bytes come and how much of the answers is taken."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from api.http.protocol import Protocol

HIGH_WATER = 65_536

T = TypeVar("T")
App = Callable[[Any, Any, Any], Awaitable[None]]


class Pipe(asyncio.Transport):
    """The other end: keeps what is sent, and takes all of it, or as much as `take` says where `takes` is False."""

    def __init__(self, protocol: Protocol, *, takes: bool = True) -> None:
        super().__init__()
        self.protocol = protocol
        self.takes = takes
        self.taken = 0
        self.sent = bytearray()
        self.reads = True
        self.our_side_closed = self.closed = self.aborted = False
        self._closing = False

    def write(self, data: Any) -> None:
        assert not self.our_side_closed, "nothing may follow the end of our side"
        self.sent += data
        if self.get_write_buffer_size() > HIGH_WATER:
            self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """The peer reads so many bytes of what is sent."""
        self.taken += count
        if self.get_write_buffer_size() == 0:
            self.protocol.resume_writing()
            if self._closing:
                self._lost()

    def get_write_buffer_size(self) -> int:
        return 0 if self.takes else max(0, len(self.sent) - self.taken)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.our_side_closed = True

    def close(self) -> None:
        self._closing = True
        if self.get_write_buffer_size() == 0:
            self._lost()

    def abort(self) -> None:
        self._closing = self.aborted = True
        self._lost()

    def _lost(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  -- a pipe has no socket
        return default


class Driven:
    """A connection to `app`, and what came back on it."""

    def __init__(self, app: App, *, takes: bool = True, state: ServerState | None = None) -> None:
        self.state = state or ServerState()
        self.protocol = Protocol(Config(app, log_config=None), self.state, {})
        self.pipe = Pipe(self.protocol, takes=takes)
        self.protocol.connection_made(self.pipe)

    async def send(self, *pieces: bytes) -> "Driven":
        """Each piece as a segment of its own; whatever can be done is done before the next."""
        for piece in pieces:
            if self.pipe.closed:
                break
            self.protocol.data_received(piece)
            await until_idle()
        return self

    async def end(self) -> "Driven":
        """The peer closes its side."""
        if not self.protocol.eof_received():
            self.pipe.close()
        await until_idle()
        return self

    def answers(self) -> list[tuple[int, Any]]:
        """Status and JSON of each whole answer. What is no HTTP fails the test."""
        return [(status, json.loads(body) if body else None) for status, body in read(self.pipe.sent)]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time a test moves on."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """A test's story on a Clock."""
    with asyncio.Runner(loop_factory=Clock) as runner:
        return runner.run(scenario)


async def passes(seconds: float) -> None:
    """So much time, second by second, so that whatever looks each second does."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    for _ in range(int(seconds)):
        loop.ahead += 1
        await until_idle()


async def until_idle() -> None:
    """Until every task has come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class _Answers:
    def __init__(self) -> None:
        self.whole: list[tuple[int, bytes]] = []
        self.body = bytearray()
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() != 100:
            self.whole.append((self.parser.get_status_code(), bytes(self.body)))
        self.body.clear()


def read(raw: bytes | bytearray) -> list[tuple[int, bytes]]:
    """Status and body of each whole answer in `raw`, without 100s."""
    answers = _Answers()
    answers.parser.feed_data(bytes(raw))
    return answers.whole


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """An app that says what it was asked."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await _say(scope, send, body.decode("latin-1"))


async def hasty(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers before it has read the body, as where the key is wrong."""
    await _say(scope, send, "")


async def _say(scope: Any, send: Any, body: str) -> None:
    offered = any(name == b"upgrade" for name, _ in scope["headers"])
    said = json.dumps([scope["method"], scope["path"], body, "upgrade" if offered else ""]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


def halves(raw: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Every way to send `raw` in two segments."""
    return ((raw[:at], raw[at:]) for at in range(1, len(raw)))


def pieces(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]
