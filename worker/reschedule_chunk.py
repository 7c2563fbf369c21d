"""A bulk job's pass over some posts of one chunk: lock, drain, decide, write, in the caller's transaction (SPEC 5).

A dry run goes the same way and asks the same `reschedules.decide`, but it locks no post and writes none: of queued
edits it reckons what they will make of the post, and leaves the applying to whoever was rung for them.
"""

import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Literal

from sqlalchemy import Connection

from shared.domain import events, lifecycle, reschedule_jobs, reschedules
from shared.domain.edits import EditPatch
from shared.domain.events import Event
from shared.domain.lifecycle import Status
from shared.domain.reschedules import Move, Outcome, Reason, ScheduleFacts
from shared.domain.times import format_instant
from shared.settings import settings
from shared.store import batches
from shared.store import posts as posts_store
from shared.store import reschedule_moves as moves_store
from shared.store import webhooks as webhooks_store
from shared.store.reschedule_chunks import Chunk, OutcomeRow, Step, Work
from shared.store.reschedule_moves import Moved
from worker.apply import Drained, drain
from worker.attempts import Attempts
from worker.batch_limits import BYTES_A_TASK, EDITS_A_TASK, runs_alone

PERIODS_TO_WAIT = 3
"""Rescue periods within which an edit that was tried is run again, alone, if anybody works on edits at all."""

RECKONED_AT_ONCE = 50
"""Posts whose contents a dry run holds in memory at a time: 35 URLs are 72 kB."""

RECKONS_FOR = 3.0
"""Seconds after which a dry run begins no more queues; the rest is for its next step."""

Current = ScheduleFacts | Reason | None
"""A post after its queued edits; why it is skipped; or None: it must wait, since its queue was too long for one task or
somebody else has an edit of it locked.
"""


@dataclass(slots=True)
class Pass:
    """What a pass came to. `held`: indexes that are still to be decided; `publishes`: what is to be enqueued;
    `events`: what the receiver of webhooks is to be told, if there is one (`tells`).
    """

    job: Work
    chunk: Chunk
    now: datetime
    soon: datetime
    tells: bool
    moves: list[Moved] = field(default_factory=list)
    stays: list[Moved] = field(default_factory=list)
    told: list[OutcomeRow] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    publishes: list[tuple[str, int, datetime | None]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    drained: Drained | None = None

    def note(self, index: int, post: ScheduleFacts, goal: Move | Reason) -> None:
        """Sort one decision to where it is written."""
        if isinstance(goal, Reason):
            before = None if goal is Reason.NOT_FOUND else format_instant(post.scheduled_time)
            self.told.append((index, goal.outcome, before, None, goal))
        elif self.job.dry_run:
            before, after = format_instant(post.scheduled_time), format_instant(goal.at)
            self.told.append((index, Outcome.APPLIED, before, after, None))
        elif goal.at == post.scheduled_time and goal.timezone == post.timezone:
            self.stays.append(Moved(self.chunk.first + index, post.id, *goal))
        else:
            self.moves.append(Moved(self.chunk.first + index, post.id, *goal))
            if self.tells and goal.at != post.scheduled_time:
                self.events.append(self._event(index, post, goal))
            if goal.at <= self.soon and goal.at != post.scheduled_time and post.status == Status.GENERATED:
                self.publishes.append((post.id, post.schedule_revision + 1, goal.at))

    def _event(self, index: int, post: ScheduleFacts, goal: Move) -> Event:
        edit_id = reschedule_jobs.audit_id(self.job.id, self.chunk.first + index)
        both = post.scheduled_time, goal.at
        revision = post.revision + 1  # a move is one step (`lifecycle.moved`, `moves_store.move`)
        return events.rescheduled(
            self.job.workspace_id, post.id, revision, *both, editId=edit_id, rescheduleId=self.job.id
        )

    def step(self, chunks: int) -> Step:
        """What it adds to the job's counters; `chunks`: 1 if it is a chunk's first pass."""
        failed = sum(one[1] == Outcome.FAILED for one in self.told)
        applied = sum(one[1] == Outcome.APPLIED for one in self.told) + len(self.moves) + len(self.stays)
        skipped = len(self.told) + len(self.moves) + len(self.stays) - failed - applied
        return Step(chunks, len(self.held) - len(self.chunk.contended), applied, skipped, failed)


def undecided(chunk: Chunk) -> list[int]:
    """A new chunk's posts but for those that the freeze did not find."""
    told = {one[0] for one in chunk.outcomes}
    return [index for index in range(len(chunk.post_ids)) if index not in told]


def work(
    tx: Connection,
    job: Work,
    chunk: Chunk,
    indexes: Sequence[int],
    *,
    attempts: Attempts,
    when_locked: Literal["wait", "skip"] = "skip",
) -> Pass:
    """Decide and write these posts of a chunk, but for what the chunk's own row is told."""
    index_of = {chunk.post_ids[index]: index for index in indexes}
    ids = list(index_of)
    if job.dry_run:
        # The queues first: an edit that is applied before the posts are read stands in them, and is in no queue then.
        now, waiting = moves_store.moment(tx, ids)
        posts = posts_store.read_schedules(tx, ids)
    else:
        posts = posts_store.lock_schedules(tx, ids, when_locked)
        now, waiting = moves_store.moment(tx, [post.id for post in posts])
    soon = now + timedelta(seconds=settings().horizon)
    done = Pass(job, chunk, now, soon, tells=webhooks_store.wanted())
    busy: dict[str, Current] = {}
    if waiting:
        busy = _reckoned(tx, waiting) if job.dry_run else _drained(tx, waiting, attempts, done)
    aim = reschedules.aiming(reschedules.plan_of(job.plan), chunk.aims)
    for post in posts:
        index = index_of.pop(post.id)
        current = busy.get(post.id, post)
        if current is None:
            done.held.append(index)
        elif isinstance(current, Reason):
            done.note(index, post, current)
        else:
            done.note(index, current, reschedules.decide(index, current, aim, now))
    done.held += index_of.values()
    if not job.dry_run:
        moves_store.move(tx, job, done.moves, now=now, soon=soon)
        moves_store.stay(tx, job, done.stays, now=now)
        webhooks_store.record(tx, done.events)
    return done


def _drained(tx: Connection, waiting: Sequence[str], attempts: Attempts, done: Pass) -> dict[str, Current]:
    """What the queued edits make of locked posts, applied by the same code as ever. A post whose queue has an edit that
    was tried before is not moved: run here, it could take a thousand neighbours with it.
    """
    # Ours already: this reads the whole rows, which only these few need.
    taken = batches.take(tx, waiting, EDITS_A_TASK, BYTES_A_TASK)
    done.drained = drain(tx, taken.locked, attempts, taken.queue)
    busy: dict[str, Current] = {post_id: reschedules.seen(facts) for post_id, facts in done.drained.posts.items()}
    busy |= dict.fromkeys((*taken.left, *done.drained.more, *done.drained.held))
    return busy | _tried(tx, done.drained.tried)


def _tried(tx: Connection, post_ids: Collection[str]) -> dict[str, Current]:
    """Posts whose queue has an edit that was tried before. One that was tried just now is waited for: a worker may be
    at it, or may have been frozen at it and will give its attempt back; and if it died, the edit is run alone within
    seconds, or is given up for good. One that nobody has tried for longer is what the post is skipped for.
    """
    if not post_ids:
        return {}
    lately = moves_store.started_recently(tx, post_ids, PERIODS_TO_WAIT * settings().rescue_period)
    return {post_id: None if post_id in lately else Reason.EDIT_WAITING for post_id in post_ids}


def _reckoned(tx: Connection, waiting: Sequence[str]) -> dict[str, Current]:
    """What the queued edits will make of posts, all of them, without applying them. Posts that must wait: those that
    somebody changed meanwhile, and those for which there was no time any more.
    """
    reckoned: dict[str, Current] = dict.fromkeys(waiting)
    ends = time.monotonic() + RECKONS_FOR
    for start in range(0, len(waiting), RECKONED_AT_ONCE):
        reckoned |= _reckoned_at_once(tx, waiting[start : start + RECKONED_AT_ONCE])
        if time.monotonic() > ends:
            break
    return reckoned


def _reckoned_at_once(tx: Connection, waiting: Sequence[str]) -> dict[str, Current]:
    found, _ = posts_store.read_posts(tx, waiting)
    reckoned: dict[str, Current] = {post_id: reschedules.seen(post.facts) for post_id, post in found.items()}
    tried: set[str] = set()
    with closing(moves_store.waiting(tx, found)) as edits:
        for post_id, some in groupby(edits, attrgetter("post_id")):
            facts = found[post_id].facts
            for edit in some:
                if runs_alone(edit.attempts, edit.deferrals):
                    tried.add(post_id)
                decision = lifecycle.decide(facts, EditPatch.from_changes(edit.changes), edit.created_at, edit.if_match)
                if isinstance(decision, lifecycle.Apply):
                    facts = decision.after
            reckoned[post_id] = reschedules.seen(facts)
    reckoned |= _tried(tx, tried)
    for now in posts_store.read_schedules(tx, list(found)):
        if now != reschedules.seen(found[now.id].facts):
            reckoned[now.id] = None
    return reckoned
