"""The way of a bulk job: freeze its posts, move one chunk a task, come back to posts that others held (SPEC 5).

Each chunk is one transaction, which counts itself: a kill repeats nothing and loses nothing. Some messages go round for
each job, and each takes a chunk that nobody works on, so that one more or less does no harm.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy import Connection

from shared.domain import reschedules
from shared.domain.reschedules import Spread
from shared.settings import settings
from shared.store import StaleWriteError, db
from shared.store import posts as posts_store
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_freezes as freezes_store
from shared.store import reschedules as reschedules_store
from shared.store.db import transaction
from shared.store.reschedule_chunks import FREEZING, Progress, Work
from worker.apply import WAIT_FOR_HELD, Applied
from worker.attempts import Attempts
from worker.reschedule_chunk import Pass, undecided, work

SIDE_BY_SIDE = 2
"""Chunks of one job at a time, where nobody makes single edits: PostgreSQL and Python take turns in each."""

EDITS_GO_ON = 2.0
"""Seconds for which one single edit makes jobs leave room for the next: two chunks at once keep every core of a small
machine busy, and an edit that comes then waits for its turn there at each of its many steps.
"""

CHUNKS_HELD_A_TASK = 10
COME_BACK = 0.25
"""Seconds until a message goes on that found nothing to do, or that leaves room: a chunk has a core to itself for a
twentieth of a second, so that an edit that comes one by one mostly finds the machine free.
"""

STEPS = frozenset({"frozen", "moved", "planned", "failed"})
"""Outcomes of a task that went one step further with a job."""

log = structlog.get_logger(__name__)


class EndedError(StaleWriteError):
    """The job was ended while this transaction worked on it: roll back, nothing moves after a cancel was answered."""


class GiveUpError(Exception):
    """The work ended its worker again and again."""


@dataclass(slots=True)
class Ran:
    """What a task did. `applied` is to be rung for below the commits; `messages` go on with the job after `again`
    seconds, none where others do or where it has ended. `shown` is what an operator reads of them.
    """

    outcome: str = "gone"
    applied: Applied = field(default_factory=Applied)
    counts: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    again: float = 0.0
    shown: str = ""

    def summary(self) -> dict[str, Any]:
        """A small dict for Flower: {"chunk": "moved", "applied": 998, "skipped": 2}."""
        return {"chunk": self.outcome} | {name: count for name, count in self.counts.items() if count}

    def come_back(self, outcome: str) -> None:
        self.outcome, self.messages, self.again = outcome, 1, COME_BACK

    def take(self, done: Pass, progress: Progress, *, room: bool) -> None:
        """Count a pass in, when its transaction has been committed. `room`: leave some for single edits."""
        for name in ("applied", "skipped", "failed"):
            self.counts[name] = self.counts.get(name, 0) + getattr(done.step(0), name)
        if done.drained is not None:
            self.applied.take(done.drained)
        self.applied.publishes += done.publishes
        self.applied.told += [event.post_id for event in done.events]
        self.outcome = "planned" if done.job.dry_run else "moved"
        left = progress.chunks - progress.chunks_done
        self.messages = int(left > 0 or progress.contended > 0)
        self.again = 0.0 if left and not room else COME_BACK
        self.shown = f"{done.job.id} {progress.chunks_done} of {progress.chunks} chunks done"


class Attempt:
    """One attempt at a chunk, or at the freezing, counted before it begins: what kills its worker every time must not
    go on for ever. Left by anything but a death or a surprise it is given back (SPEC 3.5).
    """

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._begun: tuple[int, int] | None = None

    def count(self, number: int, before: int) -> None:
        """It begins, after `before` attempts. Raises GiveUpError where it has too often."""
        # Before it is done: whether it was may be lost with the connection, and giving back looks which it was.
        self._begun = number, before
        with db.autocommit_relaxed() as relaxed:
            attempts = chunks_store.count_attempt(relaxed, self._job_id, number)
        if attempts > settings().edit_attempts:
            raise GiveUpError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or self._begun is None:
            return
        if isinstance(error, Exception) and not db.is_transient(error) and not isinstance(error, StaleWriteError):
            return
        if db.repeats(error):
            return  # what PostgreSQL cuts off for its length or its size would be cut off for ever
        try:
            with db.autocommit_relaxed() as relaxed:
                chunks_store.give_back_attempt(relaxed, self._job_id, *self._begun)
        except Exception as failure:  # noqa: BLE001  -- it must not hide the error that made it; four more are left
            log.warning("attempt_not_given_back", reschedule_id=self._job_id, error=type(failure).__name__)


@dataclass(slots=True)
class Turn:
    """What came of one message: what was done, and which messages follow, each (job, what operators read, seconds)."""

    done: list[Ran] = field(default_factory=list)
    messages: list[tuple[str, str, float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Of what was done last, for Flower."""
        return self.done[-1].summary()


def take_turn(job_id: str) -> Turn:
    """One step of this job; or of another workspace's, if that has been without a step for longer.

    A message is a turn in the lane, whichever job it names: as many messages go round as there are jobs, and a
    workspace with many jobs must not have as many turns. One that gave its turn away goes round again at once.
    """
    turn = Turn()
    with transaction() as tx:
        other = reschedules_store.longer_without_a_turn(tx, job_id)
    if other is not None:
        ran = run_chunk(other)
        turn.done.append(ran)
        if ran.outcome in STEPS:
            # The other job's own message is still on its way, so only those beyond it are new.
            turn.messages = [(other, ran.shown, ran.again)] * (ran.messages - 1)
            turn.messages.append((job_id, f"{job_id} let another workspace go first", ran.again))
            return turn
    ran = run_chunk(job_id)
    turn.done.append(ran)
    turn.messages = [(job_id, ran.shown, ran.again)] * ran.messages
    return turn


def run_chunk(job_id: str) -> Ran:
    """Freeze a job that is new, else move one of its chunks, else come back to the posts that others held."""
    ran = Ran()
    try:
        with Attempt(job_id) as attempt:
            _await_held(job_id, _step(job_id, attempt, ran), ran)
    except EndedError:
        return Ran()
    except GiveUpError:
        with transaction() as tx:
            reschedules_store.fail(tx, job_id, "Gave up: the same posts ended their worker again and again")
        return Ran("failed")
    return ran


def _step(job_id: str, attempt: Attempt, ran: Ran) -> Sequence[int]:
    """What is to be done next for the job; the chunks in which it left posts to others."""
    numbers: Sequence[int] = ()
    done: Pass | None = None
    with Attempts() as attempts, transaction() as tx:
        taken = chunks_store.take_next(tx, job_id, time.time() - EDITS_GO_ON)
        if taken is not None and taken.beside and taken.edits_come:
            ran.come_back("yielded")
            ran.shown = f"{job_id} leaves room for single edits"
        elif taken is not None:
            found = chunks_store.read(tx, job_id, taken.number)
            if found is None:
                return ()
            job, chunk = found
            if chunk.done:
                ran.come_back("beaten")
                return ()
            attempt.count(taken.number, chunk.attempts)
            done = work(tx, job, chunk, undecided(chunk), attempts=attempts)
            progress = _write_down(tx, done)
            numbers = [taken.number] if done.held else ()
        else:
            numbers = _without_a_chunk(tx, job_id, attempt, ran)
    if done is not None:
        ran.take(done, progress, room=taken is not None and taken.edits_come)
        return numbers
    # All those that are free by now at once; the others are waited for, one by one.
    return [number for number in numbers if _come_back(job_id, number, ran)]


def _without_a_chunk(tx: Connection, job_id: str, attempt: Attempt, ran: Ran) -> Sequence[int]:
    """No chunk is to be had: the job is new, or others work on all that is left, or only held posts are."""
    job = chunks_store.work(tx, job_id)
    if job is None:
        return ()
    if job.total is None:
        # Read again once it is ours: whoever had it may have frozen the job since we looked.
        job = chunks_store.work(tx, job_id) if chunks_store.take(tx, job_id, FREEZING) else None
        if job is None or job.total is not None:
            ran.outcome = "busy"
        elif chunks_store.take(tx, job.workspace_id, FREEZING):
            attempt.count(FREEZING, job.attempts)
            _freeze(tx, job, ran)
        else:
            ran.come_back("waits")
            ran.shown = f"{job_id} waits for another job of its workspace to be frozen"
        return ()
    if job.chunks_done < (job.chunks or 0):
        ran.outcome = "busy"
        return ()
    ran.come_back("held")
    ran.shown = f"{job.id} {job.contended} posts held by others"
    return chunks_store.contended_chunks(tx, job_id, CHUNKS_HELD_A_TASK)


def _freeze(tx: Connection, job: Work, ran: Ran) -> None:
    found = freezes_store.freeze(tx, job)
    plan = reschedules.plan_of(job.plan)
    if isinstance(plan, Spread):
        plan = Spread(plan.first, plan.last, plan.timezone, found.places)
    if not freezes_store.frozen(tx, job, found, plan.stored()):
        raise EndedError
    ran.outcome, ran.counts = "frozen", {"total": found.total}
    ran.messages, ran.shown = min(found.chunks, SIDE_BY_SIDE), f"{job.id} 0 of {found.chunks} chunks done"


def _write_down(tx: Connection, done: Pass) -> Progress:
    """The outcomes that have no audit row, and the job's counters, in the transaction that moved the posts."""
    chunks_store.record(tx, done.job.id, done.chunk, done.told, done.held)
    progress = chunks_store.advance(tx, done.job.id, done.step(int(not done.chunk.done)))
    if progress is None:
        raise EndedError
    return progress


def _come_back(job_id: str, number: int, ran: Ran, index: int | None = None, wait: float = 0.0) -> bool:
    """Decide posts of a chunk that others held: those that are free now, or one, waited for. Whether some are left."""
    with Attempt(job_id) as attempt, Attempts() as attempts, transaction() as tx:
        found = chunks_store.read(tx, job_id, number) if chunks_store.take(tx, job_id, number) else None
        if found is None:
            return False
        job, chunk = found
        attempt.count(number, chunk.attempts)
        wanted = [one for one in chunk.contended if index in (None, one)]
        if wait:
            posts_store.wait_at_most(tx, wait)
        done = work(tx, job, chunk, wanted, attempts=attempts, when_locked="wait" if wait else "skip")
        done.held += [one for one in chunk.contended if one not in wanted]
        progress = _write_down(tx, done)
    ran.take(done, progress, room=False)
    return bool(done.held)


def _await_held(job_id: str, numbers: Sequence[int], ran: Ran) -> None:
    """Wait for posts that others hold, one by one, 50 ms in all; the rest when this job comes back (SPEC 3.4)."""
    deadline = time.monotonic() + WAIT_FOR_HELD
    for number in numbers:
        with transaction() as tx:
            held = chunks_store.contended(tx, job_id, number)
        for index in held:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                _come_back(job_id, number, ran, index, left)
            except Exception as error:
                if not db.lock_timed_out(error):
                    raise
