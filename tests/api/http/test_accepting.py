"""A new client does not wait behind thousands that connected before it."""

import asyncio
import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from api.http import accepting
from api.http.accepting import Loop
from tests.waiting import until

MANY = 300


class Greeting(asyncio.Protocol):
    """Says hello, once."""

    made = 0

    def connection_made(self, transport: Any) -> None:
        Greeting.made += 1
        transport.write(b"hello")
        transport.close()


def run(scenario: Any) -> None:
    Greeting.made = 0
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


def connect(opened: ExitStack, port: int, count: int) -> list[socket.socket]:
    return [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(count)]


def said(client: socket.socket) -> bytes:
    found = b""
    while some := client.recv(64):
        found += some
    return found


def test_connections_are_accepted_many_in_a_round_of_the_loop() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Greeting, "127.0.0.1", 0, backlog=MANY)
        with ExitStack() as opened:
            # Not a word of it reaches the loop before all are there.
            clients = connect(opened, server.sockets[0].getsockname()[1], MANY)
            rounds = 0
            while Greeting.made < MANY:
                rounds += 1
                assert rounds <= MANY // 4, f"{Greeting.made} after {rounds} rounds"
                await asyncio.sleep(0)
            assert {await asyncio.to_thread(said, client) for client in clients} == {b"hello"}
        server.close()
        await server.wait_closed()

    run(scenario)


def test_when_it_is_closed_nobody_gets_in() -> None:
    async def scenario() -> None:
        server = await asyncio.get_running_loop().create_server(Greeting, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    run(scenario)


def test_out_of_files_it_tries_again_later_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "PAUSE", 0.05)
    attempts: list[int] = []

    class Exhausted:
        """A listening socket for which there is no file, three times."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def accept(self) -> Any:
            attempts.append(1)
            if len(attempts) <= 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server: Any = await loop.create_server(Greeting, "127.0.0.1", 0)
        (real,) = server._own
        loop.remove_reader(real)
        server._own = [Exhausted(real)]
        server._resume(server._own[0])
        with ExitStack() as opened:
            (client,) = connect(opened, server.sockets[0].getsockname()[1], 1)
            await until(lambda: Greeting.made == 1)
            assert await asyncio.to_thread(said, client) == b"hello"
        assert 4 <= len(attempts) <= 6
        server.close()
        await server.wait_closed()

    run(scenario)
