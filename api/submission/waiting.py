"""Requests that wait for an edit's end: no thread, no connection, one look-up for all of them (SPEC 4, 7)."""

import asyncio
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from api.http.shares import Shares
from shared.domain.queued_edits import EditResult
from shared.store import edits as edits_store
from shared.store.db import transaction

SILENCE = 0.1
TICK = 0.02
SLOW = 1.0
"""Seconds after which an edit is not counted as under way any more: somebody holds its post, or no worker runs, and the
others are not to wait for that.
"""
LAST_WAIT = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that waits. The future ends with the edit's End, or with None when the time is over."""

    edit_id: str
    owner: str
    future: asyncio.Future[EditResult | None]
    since: float
    until: float
    look_at: float = field(default=0.0)
    looked: bool = field(default=False)
    slow: bool = field(default=False)


class Waiting:
    """All waiters of this process. Lives on the event loop; look-ups are done by a thread."""

    def __init__(self, most: int, ended: Callable[[Iterable[str]], object], left: Callable[[], object]) -> None:
        """At most `most` wait. `ended` is told of edits whose end was found in the database, `left` whenever somebody
        waits no more.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="waiting")
        self._by_edit: dict[str, list[Waiter]] = {}
        self._places = Shares(most)
        self._patient = 0
        self._slow = Shares(most)
        self._looking = False
        self._limit = math.inf
        self._ended = ended
        self._left = left
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def under_way(self) -> int:
        """How many edits are on their way to their ends, as far as it takes no longer than SLOW."""
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
    def hopeful(self) -> int:
        """How many may end at any moment: the others' edits were looked for, and are still queued for some reason."""
        return len(self._places) - self._patient

    def wait(self, edit_id: str, seconds: float, owner: str) -> asyncio.Future[EditResult | None]:
        """A future that ends with the edit's End, or None after `seconds`, for a request of this workspace.

        For an edit that is queued, as far as is known: one that may have ended long ago is read first, since the time
        may be over before a look-up is.
        """
        now = self._loop.time()
        future: asyncio.Future[EditResult | None] = self._loop.create_future()
        waiter = Waiter(edit_id, owner, future, now, min(now + seconds, self._limit), now + SILENCE)
        self._by_edit.setdefault(edit_id, []).append(waiter)
        self._places.take(owner)
        self._arm()
        return future

    def shorten_waits(self) -> None:
        """The process is to end: from now on nobody waits for longer than LAST_WAIT. Their edits are safe."""
        if self._limit < math.inf:
            return  # each open connection says so
        self._limit = self._loop.time() + LAST_WAIT
        for waiters in self._by_edit.values():
            for waiter in waiters:
                waiter.until = min(waiter.until, self._limit)

    def heard(self, ends: dict[str, EditResult]) -> None:
        """Ends that a worker announced, or that a look-up found."""
        for edit_id, end in ends.items():
            for waiter in self._by_edit.pop(edit_id, ()):
                self._forget(waiter)
                if not waiter.future.done():
                    waiter.future.set_result(end)
        self._left()

    def look_up(self, edit_ids: Iterable[str]) -> None:
        """The answer did not name these: read them at once."""
        wanted = [edit_id for edit_id in edit_ids if edit_id in self._by_edit]
        if wanted:
            self._look(wanted)

    async def close(self) -> None:
        """Let everybody go: their edits are safe. The look-up in hand is finished, and its connection given back."""
        if self._timer:
            self._timer.cancel()
        for waiters in self._by_edit.values():
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(None)
                self._forget(waiter)
        self._by_edit.clear()
        await self._loop.run_in_executor(None, self._thread.shutdown)

    def _arm(self) -> None:
        if self._timer is None and self._by_edit:
            self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        silent: list[str] = []
        for edit_id, waiters in list(self._by_edit.items()):
            for waiter in list(waiters):
                if waiter.future.done() or waiter.until <= now:
                    self._leave(waiter)
                    continue
                if not waiter.slow and waiter.since + SLOW <= now:
                    waiter.slow = True
                    self._slow.take(waiter.owner)
                if waiter.look_at <= now:
                    silent.append(edit_id)
        if silent:
            self._look(silent)
        self._left()
        self._arm()

    def _leave(self, waiter: Waiter) -> None:
        waiters = self._by_edit[waiter.edit_id]
        waiters.remove(waiter)
        if not waiters:
            del self._by_edit[waiter.edit_id]
        self._forget(waiter)
        if not waiter.future.done():
            waiter.future.set_result(None)

    def _forget(self, waiter: Waiter) -> None:
        self._places.give_back(waiter.owner)
        self._patient -= waiter.looked
        if waiter.slow:
            self._slow.give_back(waiter.owner)

    def _look(self, edit_ids: list[str]) -> None:
        """One query at a time for all who heard nothing; whoever comes meanwhile is in the next."""
        if self._looking:
            return
        self._looking = True
        wanted = list(dict.fromkeys(edit_ids))
        asked = self._loop.run_in_executor(self._thread, _ends, wanted)
        asked.add_done_callback(lambda found: self._looked(wanted, found))

    def _looked(self, wanted: list[str], found: asyncio.Future[dict[str, EditResult]]) -> None:
        self._looking = False
        if found.cancelled():
            return
        error = found.exception()
        if error is not None:
            log.warning("look_up_failed", waiting=len(wanted), error=type(error).__name__)
        ends = {} if error else found.result()
        if ends:
            self.heard(ends)
            self._ended(ends)
        look_at = self._loop.time() + SILENCE
        for edit_id in wanted:
            for waiter in self._by_edit.get(edit_id, ()):
                waiter.look_at = look_at
                self._patient += not (waiter.looked or error)
                waiter.looked |= not error


def _ends(edit_ids: list[str]) -> dict[str, EditResult]:
    with transaction() as tx:
        return edits_store.results_of(tx, edit_ids)
