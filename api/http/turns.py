"""Turns on what all requests of a process share: the event loop's time, and the threads that use the database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from api.http.shares import Lines, Shares

T = TypeVar("T")

A_ROUND = 16
"""How many requests begin in one round of the event loop. A round of thousands would take seconds. A request that comes
meanwhile waits for several rounds: to be accepted, read, recorded and answered.
"""

SWITCH = 0.001
"""Seconds after which the event loop lets a thread have the interpreter. Python's default is 5 ms: in a flood, a thread
would wait that long after each of PostgreSQL's answers.
"""

owner: ContextVar[str] = ContextVar("owner", default="")
"""The workspace whose request is served; "" before its key is known, and for requests without a key."""


class Turns:
    """The event loop's time: A_ROUND requests begin in a round of the loop, and workspaces take turns."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: Lines[asyncio.Future[None]] = Lines()
        self._left = A_ROUND
        self._next_is_planned = False

    def turn(self, whose: str) -> asyncio.Future[None] | None:
        """A future that is done when it is this owner's turn. None if it is his turn now, as with few requests."""
        if self._left and not self._lines:
            self._begin()
            return None
        future: asyncio.Future[None] = self._loop.create_future()
        self._lines.add(whose, future)
        return future

    def _begin(self) -> None:
        self._left -= 1
        if not self._next_is_planned:
            self._next_is_planned = True
            self._loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        self._next_is_planned, self._left = False, A_ROUND
        while self._left and (found := self._lines.take()):
            future = found[1]
            if not future.done():
                future.set_result(None)
                self._begin()


class FairThreads:
    """A pool of threads that workspaces share. No workspace has all threads, and the calls of all run in turn."""

    def __init__(self, size: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._busy = Shares(size)
        self._lines: Lines[tuple[asyncio.Future[Any], Callable[[], Any]]] = Lines()

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """What `call` returns or raises, from a thread, where it sees the request's context variables. A future that is
        cancelled before that is never run.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._lines.add(owner.get(), (future, partial(copy_context().run, call)))
        self._fill()
        return future

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _fill(self) -> None:
        while self._lines and (found := self._lines.take(self._busy.admits)):
            whose, (future, call) = found
            if future.done():
                continue
            self._busy.take(whose)
            ran = self._loop.run_in_executor(self._pool, call)
            ran.add_done_callback(partial(self._ran, whose, future))

    def _ran(self, whose: str, future: asyncio.Future[Any], ran: asyncio.Future[Any]) -> None:
        self._busy.give_back(whose)
        self._fill()
        error = None if ran.cancelled() else ran.exception()
        if future.done():
            return
        if ran.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(ran.result())
