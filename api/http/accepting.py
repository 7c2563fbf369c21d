"""Accepts many connections in a round of the event loop, so that a new client does not wait behind a flood of them.

uvloop 0.23 accepts one connection in each round. While 2,000 connections keep the loop busy, a round takes a tenth of a
second and more. A new client then waits behind all that connected before: up to 19 s were measured.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import uvloop

from api.http import exit_code
from shared.settings import settings

A_ROUND = 64
PAUSE = 0.5
"""Seconds without accepting, after the process or the machine was out of files or memory."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = structlog.get_logger(__name__)


class Listening:
    """A server whose connections this class accepts. `bound`: uvloop's server, which is bound but accepts nothing."""

    def __init__(self, loop: "Loop", bound: Any, protocol: Callable[[], asyncio.Protocol], backlog: int) -> None:
        self._loop = loop
        self._bound = bound
        self._protocol = protocol
        self._connecting: set[asyncio.Task[None]] = set()
        # Duplicates: uvloop forbids a reader on a socket of one of its servers.
        self._own = [socket.socket(fileno=socket.dup(one.fileno())) for one in bound.sockets]
        for one in self._own:
            one.settimeout(0)
            one.listen(backlog)
            loop.add_reader(one, self._accept, one)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        found: Sequence[socket.socket] = self._bound.sockets
        return found

    def close(self) -> None:
        for one in self._own:
            self._loop.remove_reader(one)
            one.close()
        self._own = []
        self._bound.close()

    async def wait_closed(self) -> None:
        if self._connecting:
            await asyncio.wait(self._connecting)
        await self._bound.wait_closed()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(A_ROUND):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                log.warning("cannot_accept", error=errno.errorcode[error.errno], again_in=PAUSE)
                self._loop.remove_reader(listener)
                self._loop.call_later(PAUSE, self._resume, listener)
                return
            connection.settimeout(0)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._own:
            self._loop.add_reader(listener, self._accept, listener)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:
            # The client has gone already.
            log.debug("not_connected", error=type(error).__name__)
            connection.close()


class Loop(uvloop.Loop):
    """uvloop's event loop, which accepts TCP connections by Listening. uvicorn makes it (shared/local/commands.py)."""

    def __init__(self) -> None:
        super().__init__()
        # uvicorn takes over the signals after it has made its loop, and no place of ours comes before that.
        exit_code.zero_at_sigterm()

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, backlog: int = 100, **given: Any
    ) -> Any:
        """As uvloop's. With TLS, or with a socket that the caller made, it is uvloop's own server.

        Several processes on one port each have a socket of their own (SO_REUSEPORT), so that the kernel gives each its
        share of the clients. With one socket for all, the first to wake up would accept all that wait.
        """
        if given.get("ssl") is not None or given.get("sock") is not None:
            return await super().create_server(protocol_factory, host, port, backlog=backlog, **given)
        given |= {"start_serving": False, "reuse_port": bool(settings().api_place)}
        bound = await super().create_server(protocol_factory, host, port, backlog=backlog, **given)
        return Listening(self, bound, protocol_factory, backlog)
