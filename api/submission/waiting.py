"""Requests that wait for an edit's result: no thread, no connection, and one look-up for all of them."""

import asyncio
import math
import random
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from api.http.coalescer import Coalescer
from api.http.shares import Shares
from shared.domain.queued_edits import EditResult
from shared.store import edits as edits_store
from shared.store.db import transaction

SILENCE = 0.1
TICK = 0.02
SLOW = 1.0
"""Seconds after which an edit does not count as under way: its post is locked, or no worker runs. Other edits must not
wait for that.
"""
LAST_WAIT = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that waits. Its future gets the edit's End, or None when the time is over.

    `since`, `until` and `look_at` are times of the event loop. `looked`: a look-up found the edit still queued. `slow`:
    it has waited for SLOW seconds. `counts`: it is a request, and takes a place.
    """

    edit_id: str
    owner: str
    future: asyncio.Future[Any]
    since: float
    until: float
    look_at: float = field(default=0.0)
    looked: bool = field(default=False)
    slow: bool = field(default=False)
    counts: bool = field(default=True)
    needs_body = True

    @property
    def edit_ids(self) -> Collection[str]:
        """The edits whose results are not known yet."""
        return (self.edit_id,)

    def samples(self) -> Iterable[str]:
        """The edits to look up after a silence."""
        return (self.edit_id,)

    def hear(self, end: EditResult, now: float) -> bool:  # noqa: ARG002  -- the time is for those that hear more
        """Take a result. Returned: whether the wait is over."""
        self.end(end)
        return True

    def end(self, result: EditResult | None = None) -> None:
        """Hand out what is known."""
        if not self.future.done():
            self.future.set_result(result)


@dataclass(slots=True, eq=False)
class WaiterForMany(Waiter):
    """One request that waits for many edits. Its future gets their results by id, as far as they are known when the
    time is over. It does not need the posts as the edits left them.
    """

    left: set[str] = field(default_factory=set)
    ends: dict[str, EditResult] = field(default_factory=dict)
    needs_body = False

    @property
    def edit_ids(self) -> Collection[str]:
        return self.left

    def samples(self) -> Iterable[str]:
        """One of them, at random: an announcement that was lost named others too. So a busy worker costs one look-up,
        not a thousand, and an edit whose post is locked hides the others once or twice at most.
        """
        return random.sample(tuple(self.left), 1)

    def hear(self, end: EditResult, now: float) -> bool:
        self.left.discard(end.id)
        self.ends[end.id] = end
        self.look_at = now + SILENCE
        if not self.left:
            self.end()
        return not self.left

    def end(self, result: EditResult | None = None) -> None:  # noqa: ARG002  -- it has them all
        if not self.future.done():
            self.future.set_result(self.ends)


class Waiting:
    """All waiters of this process. Lives on the event loop; a thread does the look-ups."""

    def __init__(self, most: int, left: Callable[[Iterable[str]], object]) -> None:
        """At most `most` requests wait. `left` is called when requests may have stopped waiting, with the ids of the
        edits whose results are known now; none where time was over.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="waiting")
        self._waiters: set[Waiter] = set()
        self._by_edit: dict[str, list[Waiter]] = {}
        self._places = Shares(most)
        self._still_queued = 0
        self._slow = Shares(most)
        self._look_ups: Coalescer[str, None] = Coalescer(self._look)
        self._limit = math.inf
        self._left = left
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def under_way(self) -> int:
        """How many requests have waited for less than SLOW seconds."""
        return len(self._places) - len(self._slow)

    def under_way_of(self, owner: str) -> int:
        """How many of them are this workspace's."""
        return self._places.of(owner) - self._slow.of(owner)

    @property
    def owners(self) -> int:
        """How many workspaces have requests that wait."""
        return self._places.owners

    def admits(self, owner: str) -> bool:
        """Whether one more request of this workspace may wait."""
        return self._places.admits(owner)

    @property
    def may_end_soon(self) -> int:
        """How many requests may get a result at any moment. A look-up found the others' edits still queued."""
        return len(self._places) - self._still_queued

    def wait(self, edit_id: str, seconds: float, owner: str) -> asyncio.Future[EditResult | None]:
        """A future that gets the edit's End, or None after `seconds`. `owner`: the request's workspace.

        The caller has to know that the edit was queued a moment ago. An edit that may be older is read first: the wait
        may be over before a look-up is.
        """
        now = self._loop.time()
        future: asyncio.Future[EditResult | None] = self._loop.create_future()
        self._add(Waiter(edit_id, owner, future, now, min(now + seconds, self._limit), now + SILENCE))
        return future

    def wait_for_all(
        self, edit_ids: Collection[str], seconds: float, owner: str, *, counts: bool = True
    ) -> asyncio.Future[dict[str, EditResult]]:
        """A future that gets the results of these edits, one at least: of all, or after `seconds` of those that have
        one. `counts`: it is one request, and takes a place; without that it is for the process itself.
        """
        now = self._loop.time()
        future: asyncio.Future[dict[str, EditResult]] = self._loop.create_future()
        until = min(now + seconds, self._limit)
        self._add(WaiterForMany("", owner, future, now, until, now + SILENCE, counts=counts, left=set(edit_ids)))
        return future

    def _add(self, waiter: Waiter) -> None:
        for edit_id in waiter.edit_ids:
            self._by_edit.setdefault(edit_id, []).append(waiter)
        self._waiters.add(waiter)
        if waiter.counts:
            self._places.take(waiter.owner)
        self._arm()

    def shorten_waits(self) -> None:
        """Before the process ends: from now on no request waits for longer than LAST_WAIT. The edits are safe."""
        if self._limit < math.inf:
            return  # called once for each open connection
        self._limit = self._loop.time() + LAST_WAIT
        for waiter in self._waiters:
            waiter.until = min(waiter.until, self._limit)

    def resolve(self, ends: dict[str, EditResult]) -> None:
        """Hand out results, by edit id, that a worker announced or a look-up found."""
        now = self._loop.time()
        for edit_id, end in ends.items():
            for waiter in self._by_edit.pop(edit_id, ()):
                if waiter.hear(end, now):
                    self._forget(waiter)
        self._left(ends)

    def look_up(self, edit_ids: Iterable[str]) -> None:
        """Read the results of these edits now, as far as requests wait for them."""
        for edit_id in edit_ids:
            if edit_id in self._by_edit:
                self._look_ups.ask(edit_id)

    async def close(self) -> None:
        """Answer all waiters with None: their edits are safe. Waits for the look-up under way."""
        if self._timer:
            self._timer.cancel()
        for waiter in list(self._waiters):
            self._forget(waiter)
            waiter.end()
        self._by_edit.clear()
        await self._loop.run_in_executor(None, self._thread.shutdown)

    def _arm(self) -> None:
        if self._timer is None and self._by_edit:
            self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        for waiter in list(self._waiters):
            if waiter.future.done() or waiter.until <= now:
                self._leave(waiter)
                continue
            if waiter.counts and not waiter.slow and waiter.since + SLOW <= now:
                waiter.slow = True
                self._slow.take(waiter.owner)
            if waiter.look_at <= now:
                # The look-up sets the next time.
                waiter.look_at = math.inf
                for edit_id in waiter.samples():
                    self._look_ups.ask(edit_id)
        self._left(())
        self._arm()

    def _leave(self, waiter: Waiter) -> None:
        for edit_id in waiter.edit_ids:
            waiters = self._by_edit[edit_id]
            waiters.remove(waiter)
            if not waiters:
                del self._by_edit[edit_id]
        self._forget(waiter)
        waiter.end()

    def _forget(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)
        if not waiter.counts:
            return
        self._places.give_back(waiter.owner)
        self._still_queued -= waiter.looked
        if waiter.slow:
            self._slow.give_back(waiter.owner)

    async def _look(self, edit_ids: list[str]) -> dict[str, None]:
        """Read the results of these edits in one query, and hand them out. Never raises."""
        wanted = [edit_id for edit_id in edit_ids if edit_id in self._by_edit]
        ends, found = dict[str, EditResult](), bool(wanted)
        try:
            if wanted:
                bodies = [each for each in wanted if any(waiter.needs_body for waiter in self._by_edit[each])]
                ends = await self._loop.run_in_executor(self._thread, _read_ends, wanted, bodies)
        except Exception as error:  # noqa: BLE001  -- whatever ails PostgreSQL, waiters are looked up again later
            found = False
            log.warning("look_up_failed", waiting=len(wanted), error=type(error).__name__)
        if ends:
            asking = {waiter for edit_id in ends for waiter in self._by_edit.get(edit_id, ())}
            self.resolve(ends)
            # An announcement was lost, and named others of the same request.
            for waiter in asking & self._waiters:
                self.look_up(list(waiter.edit_ids))
        look_at = self._loop.time() + SILENCE
        for edit_id in wanted:
            for waiter in self._by_edit.get(edit_id, ()):
                waiter.look_at = look_at
                self._still_queued += found and waiter.counts and not waiter.looked
                waiter.looked |= found
        return dict.fromkeys(edit_ids)


def _read_ends(edit_ids: list[str], bodies: list[str]) -> dict[str, EditResult]:
    """The results of these edits; those of `bodies` with the posts as the edits left them."""
    with transaction() as tx:
        found = edits_store.results_of(tx, bodies) if bodies else {}
        bare = set(edit_ids).difference(bodies)
        return found | edits_store.results_of(tx, bare, bodies=False) if bare else found
