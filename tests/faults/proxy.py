"""A network that misbehaves: a TCP proxy, in a thread of its own, between a process and the server that it talks to.

    with Proxy(database_url) as wire:
        harness.environment["REDRAFT_DATABASE_URL"] = wire.url
        ...
        wire.swallow()  # half-open: the sockets stay up, and nothing arrives
        wire.heal()

    with Proxy(database_url, slow=SLOW) as wire:  # every connection, from its beginning

A connection of which something was swallowed stays silent that way for ever, healed or not, its end included: TCP
delivers nothing behind a hole. Whoever holds it has to notice by himself; no keep-alive tells, for the proxy's own
kernel answers it, as a balancer's does.
"""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from tests.ports import free_port

Way = Literal["up", "down"]
BOTH: tuple[Way, ...] = ("up", "down")
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Slow:
    """A long way: each byte arrives `latency` seconds later, and never are more than `window` bytes of a connection
    under way in one direction, so that it carries `window` bytes in a round trip at most, and `bandwidth` a second.
    """

    latency: float = 0.02
    window: int = 128 * 1024
    bandwidth: float = float("inf")


SLOW = Slow()
"""To another region: 3 MB take half a second each way."""


class Lane:
    """One direction of a connection over a slow way."""

    def __init__(self, slow: Slow, sink: asyncio.StreamWriter) -> None:
        self._slow, self._sink = slow, sink
        self._under_way = 0
        self._broken = False
        self._free_at = 0.0
        self._room, self._sent = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._delivery = asyncio.create_task(self._deliver())

    async def carry(self, data: bytes) -> None:
        """Take it on its way; returns when there is room for more, as a sender's window has it."""
        for start in range(0, len(data), self._slow.window):
            some = data[start : start + self._slow.window]
            while self._under_way and self._under_way + len(some) > self._slow.window:
                await self._acknowledgement()
            self._under_way += len(some)
            self._free_at = max(time.monotonic(), self._free_at) + len(some) / self._slow.bandwidth
            self._waiting.append((self._free_at + self._slow.latency, some))
            self._sent.set()

    async def arrived(self) -> None:
        """All that was taken has arrived."""
        while self._under_way:
            await self._acknowledgement()

    async def _acknowledgement(self) -> None:
        self._room.clear()
        if not self._broken:
            await self._room.wait()
        if self._broken:
            raise ConnectionResetError

    def end(self) -> None:
        self._delivery.cancel()

    async def _deliver(self) -> None:
        try:
            while True:
                while not self._waiting:
                    self._sent.clear()
                    await self._sent.wait()
                due, data = self._waiting.popleft()
                await asyncio.sleep(due - time.monotonic())
                self._sink.write(data)
                # As long as the receiver does not read, nothing is acknowledged.
                await self._sink.drain()
                asyncio.get_running_loop().call_later(self._slow.latency, self._acknowledged, len(data))
        except OSError:
            self._broken = True
            self._room.set()

    def _acknowledged(self, size: int) -> None:
        self._under_way -= size
        self._room.set()


@dataclass(eq=False, slots=True)
class Pair:
    """One connection: the writers to its two ends, and the ways in which something of it was swallowed."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    holes: set[Way] = field(default_factory=set)


class Proxy:
    """Passes on what comes to `port`, to the server of `url`, until told otherwise. `up` is towards the server.

    `passed` and `swallowed` count bytes by way. `slow`: how long the way is. All calls may come from any thread.
    """

    def __init__(self, url: str, *, slow: Slow | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        assert parts.port, url
        self._server = parts.hostname, parts.port
        self.passed: Counter[Way] = Counter()
        self.swallowed: Counter[Way] = Counter()
        self._swallowing: tuple[Way, ...] = ()
        self._delay = 0.0
        self._slow = slow
        self._pairs: set[Pair] = set()
        # It is given up while connections are refused, and taken again.
        self._socket = self._bound(free_port())
        self.port: int = self._socket.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self.port}")).geturl()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._socket.close()

    @property
    def open(self) -> int:
        """How many connections go through it."""
        return len(self._pairs)

    def cut(self, *, reset: bool = True) -> int:
        """End every connection, at both ends; how many. `reset`: by RST, else as if the other side had closed."""
        connections: int = self._do(self._cut(reset))
        return connections

    def move(self, url: str) -> None:
        """The name behind it now means the server of `url`. Every connection to the one before is cut."""
        parts = urlsplit(url)
        self._server = str(parts.hostname), int(parts.port or 0)
        self.cut()

    def refuse(self) -> None:
        """No new connection until healed. Those that are open go on."""
        self._do(self._unlisten())

    def delay(self, seconds: float) -> None:
        """Each chunk, either way, arrives so much later: a round trip takes twice that."""
        self._delay = seconds

    def swallow(self, ways: Iterable[Way] = BOTH) -> None:
        """Half-open: what is sent these ways is taken and never arrives."""
        self._swallowing = tuple(ways)

    def heal(self) -> None:
        """All is well again, but for the connections of which something was swallowed."""
        self._swallowing, self._delay = (), 0.0
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def _bound(self, port: int) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound_buffers(bound)  # those that are accepted inherit them
        bound.bind(("127.0.0.1", port))
        return bound

    def _bound_buffers(self, end: socket.socket) -> None:
        """On a slow way the kernel must not take megabytes at once from who sends."""
        if self._slow is not None:
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, buffer, self._slow.window // 2)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connected, sock=self._socket)

    async def _unlisten(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._listener = None
        # Bound and not listening: connections are refused, and nobody else can take the port.
        self._socket = self._bound(self.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when the proxy ends; asyncio would log that as a failure.
        with suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = socket.socket()
        self._bound_buffers(end)
        end.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(end, self._server)
        except OSError:
            end.close()
            raise
        far, to_server = await asyncio.open_connection(sock=end)
        pair = Pair((writer, to_server))
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(pair, "up", reader, to_server), self._pump(pair, "down", far, writer))
        finally:
            self._pairs.discard(pair)
            to_server.transport.abort()

    async def _pump(self, pair: Pair, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        lane = Lane(self._slow, sink) if self._slow is not None else None
        try:
            await self._carry(pair, way, source, sink, lane)
        finally:
            if lane is not None:
                lane.end()

    async def _carry(
        self, pair: Pair, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, lane: Lane | None
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if way in self._swallowing:
                    pair.holes.add(way)
                if way in pair.holes:
                    self.swallowed[way] += len(data)
                    continue
                if self._delay:
                    await asyncio.sleep(self._delay)
                self.passed[way] += len(data)
                if lane is None:
                    sink.write(data)
                    await sink.drain()
                else:
                    await lane.carry(data)
            if lane is not None:
                await lane.arrived()
        if way in self._swallowing:
            pair.holes.add(way)
        if way not in pair.holes:
            # This way only: what is still to come the other way is not lost with it.
            with suppress(OSError):
                sink.write_eof()

    async def _cut(self, reset: bool) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            for end in pair.ends:
                if reset:
                    with suppress(OSError):
                        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    end.transport.abort()
                else:
                    end.close()
        return len(pairs)

    async def _end(self) -> None:
        if self._listener is not None:
            self._listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A transport closes in the loop's next round.
        await asyncio.sleep(0)
