"""Peers that do what no client does, each as a coroutine on a raw socket that goes on until the server cuts it off."""

import asyncio
import random
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.api.http.connections.peers import NOBODY, ONE, Tenant

LARGE = "/v1/posts?limit=100"
DEAD = 200.0  # seconds after which a peer that nobody ended gives up


class BoundedConnection:
    """A socket that a hostile peer holds, without any buffer of ours."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)

    async def connect(self) -> None:
        await self._loop.sock_connect(self.socket, ("127.0.0.1", self._port))

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(self._loop.sock_sendall(self.socket, data), DEAD)

    async def read(self, count: int = 65536) -> bytes:
        """ConnectionResetError at the end, too."""
        data = await asyncio.wait_for(self._loop.sock_recv(self.socket, count), DEAD)
        if not data:
            raise ConnectionResetError
        return data

    def cut_off(self) -> bool:
        """Whether the server has reset the connection; asked without reading what it said."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


Peer = Callable[[BoundedConnection, float], Awaitable[None]]


async def silent(wire: BoundedConnection, beat: float) -> None:
    await wire.read()


async def half_a_head(wire: BoundedConnection, beat: float) -> None:
    await drips(wire, ONE.head("PATCH", "/v1/posts/post_none") + b"X-Slow: ", b"a", beat)


async def half_a_body(wire: BoundedConnection, beat: float) -> None:
    await drips(wire, patch(ONE), b"a", beat)


async def half_a_body_after_the_answer(wire: BoundedConnection, beat: float) -> None:
    await drips(wire, patch(NOBODY), b"a", beat)


async def line_ends_after_the_answer(wire: BoundedConnection, beat: float) -> None:
    await drips(wire, ONE.head("GET", "/v1/accounts") + b"\r\n", b"\r\n", beat)


async def never_reads(wire: BoundedConnection, beat: float) -> None:
    """Many large answers. Nothing is sent after the requests: only the server can end it."""
    await wire.send((ONE.head("GET", LARGE) + b"\r\n") * 50)
    await until_cut_off(wire, beat)


async def never_reads_and_has_closed_its_side(wire: BoundedConnection, beat: float) -> None:
    await wire.send(ONE.head("GET", LARGE) + b"\r\n")
    wire.socket.shutdown(socket.SHUT_WR)
    await until_cut_off(wire, beat)


async def never_reads_the_last_answer(wire: BoundedConnection, beat: float) -> None:
    await wire.send(ONE.head("GET", LARGE, "Connection: close") + b"\r\n")
    await until_cut_off(wire, beat)


async def reads_a_byte_a_second(wire: BoundedConnection, beat: float) -> None:
    await wire.send(ONE.head("GET", LARGE) + b"\r\n")
    # What had come before the reset could be read for minutes.
    while not wire.cut_off():
        await wire.read(1)
        await asyncio.sleep(beat)


async def sends_on_after_the_last_answer(wire: BoundedConnection, beat: float) -> None:
    await wire.send(ONE.head("GET", "/v1/accounts", "Connection: close") + b"\r\n")
    while True:
        await wire.send(b"a" * 65536)


async def offers_and_sends_its_body_later(wire: BoundedConnection, beat: float) -> None:
    """A whole request of its own as the body; whoever gets its answer gets one that is not his."""
    for number in range(20):
        hidden = ONE.head("GET", "/v1/accounts", "X-Request-Id: hidden") + b"\r\n"
        offer = ("Connection: Upgrade", "Upgrade: h2c", "Content-Type: application/json")
        head = ONE.head(
            "PATCH", "/v1/posts/post_none", *offer, f"Content-Length: {len(hidden)}", f"X-Request-Id: n{number}"
        )
        await wire.send(head + b"\r\n")
        await asyncio.sleep(beat / 10)
        await wire.send(hidden)
        said = b""
        while not said.endswith(b"}"):
            said += await wire.read()
        if said.count(f'"requestId":"n{number}"'.encode()) != 1 or b"hidden" in said or said.count(b"HTTP/1.1") != 1:
            raise AssertionError(said)
    await asyncio.sleep(beat)


async def breaks_off(wire: BoundedConnection, beat: float) -> None:
    await wire.send(patch(ONE))
    await asyncio.sleep(beat)


async def nonsense(wire: BoundedConnection, beat: float) -> None:
    await wire.send(random.randbytes(2000))
    while True:
        await wire.read()


async def drips(wire: BoundedConnection, start: bytes, each: bytes, beat: float) -> None:
    await wire.send(start)
    reading = asyncio.ensure_future(until_closed(wire))
    try:
        while not reading.done():
            await asyncio.sleep(beat)
            await wire.send(each)
        await reading
    finally:
        reading.cancel()


async def until_closed(wire: BoundedConnection) -> None:
    with suppress(OSError):
        while True:
            await wire.read()


async def until_cut_off(wire: BoundedConnection, beat: float) -> None:
    end = time.monotonic() + DEAD
    while not wire.cut_off():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(beat / 10)


def patch(tenant: Tenant) -> bytes:
    head = tenant.head("PATCH", "/v1/posts/post_none", "Content-Type: application/json", "Content-Length: 60000")
    return head + b'\r\n{"caption": "'


PEERS: tuple[Peer, ...] = (
    silent,
    half_a_head,
    half_a_body,
    half_a_body_after_the_answer,
    line_ends_after_the_answer,
    never_reads,
    never_reads_and_has_closed_its_side,
    never_reads_the_last_answer,
    reads_a_byte_a_second,
    sends_on_after_the_last_answer,
    offers_and_sends_its_body_later,
    breaks_off,
    nonsense,
)


class Crowd:
    """So many of each kind, one life after another, until told to stop."""

    def __init__(self, port: int, *, each: int, beat: float) -> None:
        """`beat`: what is a second to these peers."""
        self._port, self._each, self._beat = port, each, beat
        self.lives: dict[str, list[float]] = defaultdict(list)
        self.wrong: Counter[str] = Counter()

    async def until(self, done: asyncio.Event) -> None:
        tasks = [asyncio.create_task(self._lives(peer)) for peer in PEERS for _ in range(self._each)]
        await done.wait()
        # Again and again: before Python 3.12 wait_for() may lose a cancellation.
        waiting = set(tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=0.5)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                self.wrong[repr(error)] += 1

    async def _lives(self, peer: Peer) -> None:
        while True:
            wire = BoundedConnection(self._port)
            began = time.monotonic()
            try:
                await wire.connect()
                await peer(wire, self._beat)
            except OSError as error:  # cut off: what it is for
                if isinstance(error, TimeoutError):
                    self.wrong[f"{peer.__name__} was never ended"] += 1
            except AssertionError as error:
                self.wrong[f"{peer.__name__}: {error}"] += 1
            finally:
                wire.socket.close()
            self.lives[peer.__name__].append(time.monotonic() - began)
            await asyncio.sleep(self._beat / 10)
