"""Many callers, one question at a time: callers that come while a round is under way share the next round."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Coalescer(Generic[K, V]):
    """Answers keys in rounds, one round at a time. Lives on the event loop.

    A key that already waits, or that is in the round under way, is not asked for twice: its callers share one future.
    """

    def __init__(self, run_round: Callable[[list[K]], Awaitable[Mapping[K, V]]], most: int | None = None) -> None:
        """`run_round` returns a value for each key that it is given. What it raises goes to all callers of its round.

        `most`: keys in a round at most; without it a round takes all keys that wait.
        """
        self._run_round = run_round
        self._most = most
        self._urgent: deque[K] = deque()
        self._waiting: deque[K] = deque()
        self._futures: dict[K, asyncio.Future[V]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, key: K, *, urgent: bool = False) -> asyncio.Future[V]:
        """The future value of this key. Callers share it: shield it from a cancellation that is one caller's own.

        `urgent` keys go into the next round before all others.
        """
        future = self._futures.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._futures[key] = loop.create_future()
            (self._urgent if urgent else self._waiting).append(key)
            if self._task is None:
                self._task = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while keys := self._take():
                try:
                    values = await self._run_round(keys)
                    for key in keys:
                        self._resolve(key, values[key])
                except Exception as error:  # noqa: BLE001  -- the callers get it; the next round is run all the same
                    for key in keys:
                        self._fail(key, error)
        finally:
            # Not empty only where the event loop ends and cancels this task.
            self._task = None
            self._urgent.clear()
            self._waiting.clear()
            for future in self._futures.values():
                future.cancel()
            self._futures.clear()

    def _take(self) -> list[K]:
        keys: list[K] = []
        while (line := self._urgent or self._waiting) and (self._most is None or len(keys) < self._most):
            keys.append(line.popleft())
        return keys

    def _resolve(self, key: K, value: V) -> None:
        future = self._futures.pop(key)
        if not future.done():
            future.set_result(value)

    def _fail(self, key: K, error: Exception) -> None:
        future = self._futures.pop(key, None)
        if future is not None and not future.done():
            future.set_exception(error)
            # Read once here, so that asyncio does not report an error whose caller has gone.
            future.exception()
