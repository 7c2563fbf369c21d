"""Many concurrent PATCHes -> one INSERT -> one doorbell. Nothing is answered before it is durable.

Workspaces take turns: each has a line of its own, and a batch takes from all lines in turn. Within a line the order is
kept. docs/fairness.md has the numbers.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import structlog

from api.http import shares
from api.http.shares import Active, Lines, Pace, Shares
from api.submission.doorbell import Doorbell
from api.submission.many_pace import ManyPace
from api.submission.recording import Recorded, Request, Verdict, record_batch
from api.submission.waiting import Waiting
from shared.broker import doorbells
from shared.broker.answers import Answer, Listener
from shared.broker.doorbells import Outcome
from shared.broker.redis_connection import client_on_loop
from shared.domain import errors
from shared.domain.edits import EditPatch
from shared.domain.errors import RedraftError
from shared.settings import Settings
from shared.store.edits import NewEdit
from shared.telemetry import metrics

BATCH = 256
BATCH_LETTERS = 2_000_000
"""Characters of all changes in a batch. 256 bodies of 128 KiB each would take longer than their requests wait."""

# A batch gathers, for GATHER seconds at most, until it has this SHARE of the requests under way recently. Each batch
# costs two commits, a doorbell and a task, so a few large batches serve a flood several times as fast as many small
# ones. The count is of recent requests, not of those now: clients that were answered together send their next requests
# within a moment, but not at once. A batch of ENOUGH requests does not gather: a larger one costs each edit little
# less, and the next batch can be written while the worker applies this one.
GATHER = 0.003
SHARE = 0.8
ENOUGH = 96
FADING = 0.7

# While another workspace sent a request within RECENTLY seconds, UNDER_WAY edits at most are under way together, from
# the batch that records them to their results, and OF_ONE of them are one workspace's. The other edits wait in their
# workspaces' lines. So batches stay small, and another workspace's edit waits behind them for a short time only.
RECENTLY = 5.0
UNDER_WAY = 64
OF_ONE = 12
LONGEST_LINE = 8.0
LATE_AT_ONCE = 32
"""LONGEST_LINE: seconds for which a request may wait in a line that moves, on top of REDRAFT_DATABASE_PATIENCE.
LATE_AT_ONCE: how many requests at most are given up in a tenth of a second after that.
"""

# Refusals of one workspace that has no place left: so many a second are answered at once, the others up to five
# seconds later.
REFUSALS_A_SECOND = 100
HELD_BACK_AT_MOST = 5.0

log = structlog.get_logger(__name__)


class Submission:
    """Records this process's edits, rings for them, and brings back their results. Lives on the event loop."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="submission")
        self._places = Shares(config.pending_max)
        self._lines: Lines[Request] = Lines()
        self._open: set[Request] = set()
        self._batched: Counter[str] = Counter()
        self._active = Active(RECENTLY)
        self._refusals = Pace(REFUSALS_A_SECOND, HELD_BACK_AT_MOST)
        self._busy = False
        self._recent_load = 0.0
        self._went_well = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._broker = client_on_loop()
        self.bell = Doorbell(f"redraft:answers:{uuid4().hex}", self._ring_out, self._active)
        self.waiting = Waiting(config.waiters_max, self._left)
        self.many = ManyPace(OF_ONE, self.waiting, self._several, config.database_patience + LONGEST_LINE)
        self._listener = Listener(self._broker, self.bell.channel, self._on_answer)

    def __len__(self) -> int:
        """How many requests are not recorded yet."""
        return len(self._open)

    def start(self) -> None:
        """Begin to hear answers."""
        self._listener.start()

    async def close(self) -> None:
        """Answer the waiters, finish the batch under way, ring for what is left. Requests in no batch get no answer."""
        self._lines.clear()
        await self.waiting.close()
        await self._loop.run_in_executor(None, self._thread.shutdown)
        await self.bell.close()
        await self._listener.stop()
        await self._broker.aclose()

    def seen(self, owner: str) -> None:
        """A request of this workspace came that is recorded elsewhere."""
        self._active.seen(owner, self._loop.time())

    def record(
        self, new: NewEdit, patch: EditPatch | None, problem: RedraftError | None, *, awaited: bool = True
    ) -> asyncio.Future[Verdict]:
        """A future that gets the verdict: Recorded, or the error to answer with. It never raises.

        `awaited`: the caller will wait for the edit's result. The verdict is Unavailable over REDRAFT_PENDING_MAX
        requests that are not recorded yet, and after REDRAFT_DATABASE_PATIENCE seconds without PostgreSQL.
        """
        future: asyncio.Future[Verdict] = self._loop.create_future()
        now, owner = self._loop.time(), new.workspace_id
        self._active.seen(owner, now)
        if not self._places.admits(owner):
            self._loop.call_later(self._refusals.hold(owner, now), _answer, future, errors.Unavailable())
            return future
        request = Request(new, patch, problem, future, now + self._config.database_patience, awaited)
        self._places.take(owner)
        self._open.add(request)
        self._lines.add(owner, request)
        self._flush()
        if self._timer is None:
            self._timer = self._loop.call_later(0.1, self._give_up_on_late)
        return future

    def _flush(self) -> None:
        """Write the next batch, at once while few requests are under way: a single edit waits for no others."""
        if self._busy or not self._lines:
            return
        self._recent_load = max(self._recent_load, self._under_way())
        if len(self._lines) < min(ENOUGH, int(self._recent_load * SHARE)):
            if self._gathering is None:
                self._gathering = self._loop.call_later(GATHER, self._gathered)
            return
        self._write()

    def _under_way(self) -> int:
        return len(self._open) + self.waiting.may_end_soon

    def _gathered(self) -> None:
        self._gathering = None
        if not self._busy and self._lines:
            self._write()

    def _write(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._recent_load = max(self._under_way(), self._recent_load * FADING)
        batch = self._batch()
        if not batch:
            return
        self._busy = True
        written = self._loop.run_in_executor(self._thread, record_batch, batch)
        written.add_done_callback(lambda done: self._written(batch, done))

    def _batch(self) -> list[Request]:
        """The next requests of all lines in turn, as many as may be under way."""
        batch: list[Request] = []
        may_go = self._may_go if self._several() else shares.everyone
        until = self._loop.time() + self._config.database_patience
        letters = 0
        while len(batch) < BATCH and letters < BATCH_LETTERS and (found := self._lines.take(may_go)):
            owner, request = found
            letters += sum(len(str(value)) for value in request.new.changes.values())
            request.taken, request.until = True, until
            self._batched[owner] += 1
            batch.append(request)
        return batch

    def _several(self) -> bool:
        """Whether more than one workspace sent a request recently."""
        return self._active.several(self._loop.time())

    def _may_go(self, owner: str) -> bool:
        waiting = self.waiting
        owned = self._batched[owner] + waiting.under_way_of(owner)
        return owned < OF_ONE and shares.admits(
            UNDER_WAY,
            taken=self._batched.total() + waiting.under_way,
            owned=owned,
            owners=max(len(self._batched), waiting.owners),
        )

    def _written(self, batch: list[Request], done: asyncio.Future[list[Verdict]]) -> None:
        self._busy = False
        if not self._several():
            self._flush()
        if done.cancelled() or done.exception():
            log.error("submission_failed", requests=len(batch), exc_info=None if done.cancelled() else done.exception())
            verdicts: list[Verdict] = [errors.Unavailable(edit_id=request.new.id) for request in batch]
        else:
            verdicts = done.result()
        if not all(isinstance(verdict, errors.Unavailable) for verdict in verdicts):
            self._went_well = self._loop.time()
        fresh = [
            request
            for request, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Recorded) and not verdict.replayed
        ]
        metrics.edits_accepted(len(fresh))
        self.bell.ring_for(
            [(request.new.post_id, request.new.id) for request in fresh],
            awaited=any(request.awaited for request in fresh),
            owners={request.new.post_id: request.new.workspace_id for request in fresh},
        )
        for request, verdict in zip(batch, verdicts, strict=True):
            self._leave(request)
            _answer(request.future, verdict)
        # After the requests that go on now: those that wait for a result are counted as waiters by then.
        self._loop.call_soon(self._forget_batch, batch)

    def _forget_batch(self, batch: list[Request]) -> None:
        self._batched -= Counter(request.new.workspace_id for request in batch)
        self._flush()

    def _leave(self, request: Request) -> None:
        if request in self._open:
            self._open.discard(request)
            self._places.give_back(request.new.workspace_id)

    def _give_up_on_late(self) -> None:
        """Answer requests that waited too long for PostgreSQL. A batch under way may still be committed."""
        self._timer = None
        now = self._loop.time()
        late = [request for request in self._open if request.until <= now and self._is_late(request, now)]
        if now < self._went_well + self._config.database_patience:
            # A few at a time: thousands of clients answered at once would all come back at once.
            late = late[:LATE_AT_ONCE]
        for request in late:
            self._leave(request)
            edit_id = request.new.id if request.taken and request.problem is None else None
            _answer(request.future, errors.Unavailable(edit_id=edit_id))
        if late:
            self._lines.keep(lambda request: not request.future.done())
        if self._open:
            self._timer = self._loop.call_later(0.1, self._give_up_on_late)

    def _is_late(self, request: Request, now: float) -> bool:
        """Whether to give up a request whose time is over. In a line that moves it may wait LONGEST_LINE more."""
        moves = now < self._went_well + self._config.database_patience
        return request.taken or not moves or request.until + LONGEST_LINE <= now

    async def _ring_out(self, posts: list[str], reply_to: str | None) -> Outcome:
        # While several workspaces are active, no doorbell waits behind another's batch: a second worker is woken.
        room = 1 if self._several() else doorbells.ROOM
        outcome = await doorbells.ring_on_loop(self._broker, posts, reply_to, room)
        metrics.doorbell_rung(outcome)
        return outcome

    def _on_answer(self, answer: Answer) -> None:
        self.waiting.resolve(answer.results)
        self.waiting.look_up(self.bell.answered(answer.bell, more=answer.more))

    def _left(self, finalized: Iterable[str]) -> None:
        """These edits have their results, whichever bell they were rung with: a worker takes a post's whole queue."""
        self.bell.finalized(finalized)
        self._flush()


def _answer(future: asyncio.Future[Verdict], verdict: Verdict) -> None:
    if not future.done():
        future.set_result(verdict)
