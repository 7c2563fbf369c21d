"""The steps of a bulk job: freeze its posts, move one chunk a task, come back to contended posts (docs/bulk.md).

Each chunk is one transaction, which counts itself: a kill repeats nothing and loses nothing. A job has a few messages
on the way at a time. Each takes a chunk that no other task works on, so that one message more or less does no harm.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection

from shared.domain import reschedule_gaps, reschedules
from shared.domain.reschedules import Spread
from shared.store import StaleWriteError, db
from shared.store import posts as posts_store
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_freezes as freezes_store
from shared.store import reschedule_warnings as warnings_store
from shared.store import reschedules as reschedules_store
from shared.store import webhooks as webhooks_store
from shared.store.db import transaction
from shared.store.reschedule_chunks import FINISHING, FREEZING, Progress, Work
from worker.apply import WAIT_FOR_LOCKS
from worker.attempts import ChunkAttempts, EditAttempts, GiveUpError
from worker.follow_ups import SNOOZE, FollowUps
from worker.reschedule_chunk import Pass, undecided, work

log = structlog.get_logger(__name__)

SIDE_BY_SIDE = 2
"""Chunks of one job at a time, while there are no single edits: PostgreSQL and Python take turns in each."""

EDITS_GO_ON = 2.0
"""Seconds after a single edit for which jobs leave room for the next one.

Two chunks at once keep every core of a small machine busy, and an edit waits for its turn at each of its many steps. So
jobs snooze between two chunks: a chunk has a core for a twentieth of a second, and an edit mostly finds one free.
"""

CONTENDED_CHUNKS_A_TASK = 10

STEPS = frozenset({"frozen", "moved", "planned", "failed"})
"""Outcomes of a task that went one step further with a job."""


class JobOverError(StaleWriteError):
    """The job was canceled or failed while this transaction worked on it: roll back. Nothing moves after a cancel."""


class TooManyOfAnAccountError(Exception):
    """A job with a gap means more posts of one account than can be decided together: roll back its freezing."""


@dataclass(slots=True)
class Ran:
    """What a task did for one job. `follow_ups`: what must be rung for below the commits, but for the job itself.

    So many `messages` go on with the job after `delay` seconds; none where other messages do, or where the job is over.
    `shown`: what an operator reads of them in Flower. `all_decided`: nothing but the job's end is left to do.
    `decided`: whether it is a step of the job at all; it is none to find contended posts contended still. `room`:
    whether single edits come, which are left room.
    """

    outcome: str = "gone"
    follow_ups: FollowUps = field(default_factory=FollowUps)
    counts: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    delay: float = 0.0
    shown: str = ""
    all_decided: bool = False
    decided: bool = True
    room: bool = False

    def summary(self) -> dict[str, Any]:
        """A small dict for Flower: {"chunk": "moved", "applied": 998, "skipped": 2}."""
        return {"chunk": self.outcome} | {name: count for name, count in self.counts.items() if count}

    def snooze(self, outcome: str) -> None:
        """Nothing to do for the job now: its message comes back."""
        self.outcome, self.messages, self.delay = outcome, 1, SNOOZE

    def ended(self, job_id: str) -> None:
        """The job has ended, which is committed: ring for its event. One ring too many does no harm."""
        if webhooks_store.wanted():
            self.follow_ups.webhooks.append(job_id)

    def take(self, done: Pass, progress: Progress, *, room: bool) -> None:
        """Count a pass in, when its transaction has been committed. `room`: leave some for single edits."""
        for name in ("applied", "skipped", "failed"):
            self.counts[name] = self.counts.get(name, 0) + getattr(done.step(0), name)
        self.follow_ups.add(done.committed())
        self.outcome = "planned" if done.job.dry_run else "moved"
        left = progress.chunks - progress.chunks_done
        self.all_decided, self.room = progress.all_decided, room
        self.decided = not done.chunk.done or len(done.contended) < len(done.chunk.contended)
        self.messages = int(not self.all_decided)
        self.delay = 0.0 if left and not room else SNOOZE
        self.shown = f"{done.job.id} {progress.chunks_done} of {progress.chunks} chunks done"


def run_chunk(job_id: str) -> Ran:
    """Freeze a job that is new, else move one of its chunks, else come back to its contended posts."""
    ran = Ran()
    try:
        with ChunkAttempts(job_id) as attempt:
            _wait_for_contended(job_id, _step(job_id, attempt, ran), ran)
        if ran.all_decided:
            _finish(job_id, ran)
    except JobOverError:
        return Ran()
    except GiveUpError as error:
        return _failed(job_id, str(error))
    except TooManyOfAnAccountError:
        return _failed(job_id, reschedule_gaps.TOO_MANY)
    return ran


def _failed(job_id: str, error: str) -> Ran:
    ran = Ran("failed")
    with transaction() as tx:
        reschedules_store.fail(tx, job_id, error)
    ran.ended(job_id)
    return ran


def _step(job_id: str, attempt: ChunkAttempts, ran: Ran) -> Sequence[int]:
    """Do what is next for the job. Returned: the chunks in which it left contended posts."""
    numbers: Sequence[int] = ()
    done: Pass | None = None
    with EditAttempts() as attempts, transaction() as tx:
        taken = chunks_store.take_next(tx, job_id, time.time() - EDITS_GO_ON)
        if taken is not None and taken.beside and taken.edits_come:
            ran.snooze("yielded")
            ran.shown = f"{job_id} leaves room for single edits"
        elif taken is not None:
            found = chunks_store.read(tx, job_id, taken.number)
            if found is None:
                return ()
            job, chunk = found
            if chunk.done:
                ran.snooze("done_already")
                return ()
            attempt.count(taken.number, chunk.attempts, chunk.post_ids)
            done = work(tx, job, chunk, undecided(chunk), attempts=attempts)
            progress = _write_down(tx, done)
            numbers = [taken.number] if done.contended else ()
        else:
            numbers = _without_a_chunk(tx, job_id, attempt, ran)
    if done is not None:
        ran.take(done, progress, room=taken is not None and taken.edits_come)
        return numbers
    # First all posts that are free by now, together. `_wait_for_contended` then waits for the others, one by one.
    return [number for number in numbers if _come_back(job_id, number, ran)]


def _without_a_chunk(tx: Connection, job_id: str, attempt: ChunkAttempts, ran: Ran) -> Sequence[int]:
    """No chunk can be taken: the job is new, or other tasks have the rest, or only contended posts are left."""
    job = chunks_store.work(tx, job_id)
    if job is None:
        return ()
    if job.total is None:
        # Read again under the lock: another task may have frozen the job since the first look.
        job = chunks_store.work(tx, job_id) if chunks_store.take(tx, job_id, FREEZING) else None
        if job is None or job.total is not None:
            _leave_to_others(job_id, ran)
        elif chunks_store.take(tx, job.workspace_id, FREEZING):
            attempt.count(FREEZING, job.attempts)
            _freeze(tx, job, ran)
        else:
            ran.snooze("waits")
            ran.shown = f"{job_id} waits for another job of its workspace to be frozen"
        return ()
    if job.chunks_done < (job.chunks or 0):
        _leave_to_others(job_id, ran)
        return ()
    if not job.contended:
        # The task that decided the last post has died before it finished the job.
        ran.outcome, ran.all_decided = "finished", True
        return ()
    ran.snooze("contended")
    ran.shown = f"{job.id} {job.contended} posts locked elsewhere"
    return chunks_store.contended_chunks(tx, job_id, CONTENDED_CHUNKS_A_TASK)


def _leave_to_others(job_id: str, ran: Ran) -> None:
    """Other tasks have all there is to do. The message comes back: one that was given a turn may be among them, and
    that one relies on this message to go on with the job.
    """
    ran.snooze("busy")
    ran.shown = f"{job_id} is at work in other tasks"


def _freeze(tx: Connection, job: Work, ran: Ran) -> None:
    found = freezes_store.freeze(tx, job)
    if found.of_an_account > reschedule_gaps.MOST_OF_AN_ACCOUNT:
        raise TooManyOfAnAccountError
    plan = reschedules.plan_of(job.plan)
    if isinstance(plan, Spread):
        plan = Spread(plan.first, plan.last, plan.timezone, found.places)
    if not freezes_store.frozen(tx, job, found, reschedule_gaps.stored(plan.stored(), job.gap)):
        raise JobOverError
    ran.outcome, ran.counts = "frozen", {"total": found.total}
    ran.messages, ran.shown = min(found.chunks, SIDE_BY_SIDE), f"{job.id} 0 of {found.chunks} chunks done"
    if not found.chunks:
        ran.ended(job.id)


def _finish(job_id: str, ran: Ran) -> None:
    """Warn of posts that share a minute, then end the job. A twin finds that done or under way."""
    try:
        with transaction() as tx:
            if not chunks_store.take(tx, job_id, FINISHING):
                _leave_to_others(job_id, ran)
                return
            job = chunks_store.work(tx, job_id)
            if job is None:
                return
            if job.gap is None:
                warnings_store.warn(tx, job)
    except Exception as error:
        # It would come each time, and the posts are moved.
        if db.is_transient(error) and not db.repeats(error):
            raise
        log.warning("warnings_left_out", reschedule_id=job_id, error=type(error).__name__)
    with transaction() as tx:
        reschedules_store.finish(tx, job_id)
    ran.ended(job_id)


def _write_down(tx: Connection, done: Pass) -> Progress:
    """The outcomes that have no audit row, and the job's counters, in the transaction that moved the posts."""
    chunks_store.record(tx, done.job.id, done.chunk, done.outcomes, done.contended)
    progress = chunks_store.advance(tx, done.job.id, done.step(int(not done.chunk.done)))
    if progress is None:
        raise JobOverError
    return progress


def _come_back(job_id: str, number: int, ran: Ran, index: int | None = None, wait: float = 0.0) -> bool:
    """Decide contended posts of a chunk: those that are free now, or only `index`, waited for.

    Returned: whether some are left.
    """
    with ChunkAttempts(job_id) as attempt, EditAttempts() as attempts, transaction() as tx:
        found = chunks_store.read(tx, job_id, number) if chunks_store.take(tx, job_id, number) else None
        if found is None:
            return False
        job, chunk = found
        attempt.count(number, chunk.attempts, [chunk.post_ids[one] for one in chunk.contended])
        wanted = [one for one in chunk.contended if index in (None, one)]
        if wait:
            posts_store.wait_at_most(tx, wait)
        done = work(tx, job, chunk, wanted, attempts=attempts, when_locked="wait" if wait else "skip")
        done.contended += [one for one in chunk.contended if one not in wanted]
        progress = _write_down(tx, done)
    ran.take(done, progress, room=False)
    return bool(done.contended)


def _wait_for_contended(job_id: str, numbers: Sequence[int], ran: Ran) -> None:
    """Wait for contended posts, one by one, 50 ms in all. The rest wait until this job comes back."""
    deadline = time.monotonic() + WAIT_FOR_LOCKS
    for number in numbers:
        with transaction() as tx:
            contended = chunks_store.contended(tx, job_id, number)
        for index in contended:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                _come_back(job_id, number, ran, index, left)
            except Exception as error:
                if not db.lock_timed_out(error):
                    raise
