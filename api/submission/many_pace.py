"""The pace of requests with many edits while several workspaces are active (docs/fairness.md)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.http.shares import Shares
from api.submission.waiting import SLOW, Waiting
from shared.domain.errors import Unavailable

LOOKS_EVERY = 0.1
"""Seconds after which a request that waits finds out that its workspace is alone now."""


class ManyPace:
    """Which requests with many edits may be recorded now. Lives on the event loop.

    One request may bring a thousand edits, which workers apply for a good part of a second. While another workspace is
    active, the next request of the same workspace is recorded only when fewer than `most` of those edits are under way.
    """

    def __init__(self, most: int, waiting: Waiting, several: Callable[[], bool], patience: float) -> None:
        """`several`: whether several workspaces are active. `patience`: seconds for which a request may wait."""
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._waiting = waiting
        self._several = several
        self._patience = patience
        self._under_way = Shares(most)
        self._change: asyncio.Future[None] = self._loop.create_future()

    @asynccontextmanager
    async def turn(self, owner: str, count: int) -> AsyncIterator[list[str]]:
        """Wait until a request of this workspace with so many edits may be recorded, and record it inside. Give the ids
        of the recorded edits to the list: they are under way until their results are known, or for SLOW seconds, since
        a post may be locked. Raises Unavailable when the patience is over.
        """
        until = self._loop.time() + self._patience
        while self._several() and self._under_way.of(owner) >= self._most:
            if self._loop.time() >= until:
                raise Unavailable
            await asyncio.wait([self._change], timeout=LOOKS_EVERY)
        edit_ids: list[str] = []
        if not (count and self._several()):
            yield edit_ids
            return
        self._under_way.take(owner, count)
        try:
            yield edit_ids
        finally:
            if edit_ids:
                ended = self._waiting.wait_for_all(edit_ids, SLOW, owner, counts=False)
                ended.add_done_callback(lambda _: self._ended(owner, count))
            else:
                self._ended(owner, count)

    def _ended(self, owner: str, count: int) -> None:
        self._under_way.give_back(owner, count)
        self._change.set_result(None)
        self._change = self._loop.create_future()
