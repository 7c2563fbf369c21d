"""A network that misbehaves: a TCP proxy, in a thread of its own, between a process and the server that it talks to.

    with Proxy(database_url) as wire:
        scene.environment["REDRAFT_DATABASE_URL"] = wire.url
        ...
        wire.swallow()  # half-open: the sockets stay up, and nothing arrives
        wire.heal()

A connection of which something was swallowed stays silent that way for ever, healed or not, its end included: TCP
delivers nothing behind a hole. Whoever holds it has to notice by himself; no keep-alive tells, for the proxy's own
kernel answers it, as a balancer's does.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

Way = Literal["up", "down"]
BOTH: tuple[Way, ...] = ("up", "down")
RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False, slots=True)
class Pair:
    """One connection: the writers to its two ends, and the ways in which something of it was swallowed."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    holes: set[Way] = field(default_factory=set)


class Proxy:
    """Passes on what comes to `port`, to the server of `url`, until told otherwise. `up` is towards the server.

    `passed` and `swallowed` count bytes by way. All calls may come from any thread.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        assert parts.port, url
        self._server = parts.hostname, parts.port
        self.passed: Counter[Way] = Counter()
        self.swallowed: Counter[Way] = Counter()
        self._swallowing: tuple[Way, ...] = ()
        self._delay = 0.0
        self._pairs: set[Pair] = set()
        self._socket = self._bound(0)
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
        return self._do(self._cut(reset))

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

    @staticmethod
    def _bound(port: int) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        return bound

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
        far, to_server = await asyncio.open_connection(*self._server)
        pair = Pair((writer, to_server))
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(pair, "up", reader, to_server), self._pump(pair, "down", far, writer))
        finally:
            self._pairs.discard(pair)
            to_server.transport.abort()

    async def _pump(self, pair: Pair, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
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
                sink.write(data)
                await sink.drain()
        if way in self._swallowing:
            pair.holes.add(way)
        if way not in pair.holes:
            sink.close()

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
