"""A bulk job's pass over some posts of one chunk: lock, drain, decide, write, in the caller's transaction.

A dry run goes the same way and asks the same `reschedules.decide`, but it locks no post and writes none. It predicts
what queued edits will make of a post, and leaves their applying to the tasks that were rung for them.
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
from worker import reschedule_gap
from worker.apply import Drained, drain
from worker.attempts import EditAttempts
from worker.batch_limits import BYTES_A_TASK, EDITS_A_TASK, runs_isolated
from worker.follow_ups import FollowUps, Publish
from worker.reschedule_gap import Decision

PERIODS_TO_WAIT = 3
"""Rescue periods within which an edit with an attempt runs again, isolated, if a worker serves edits at all."""

PREDICTED_AT_ONCE = 50
"""Posts whose contents a dry run keeps in memory at a time: 35 URLs are 72 kB."""

PREDICTS_FOR = 3.0
"""Seconds after which a dry run begins no more queues; the rest is for its next step."""

Current = ScheduleFacts | Reason | None
"""A post after its queued edits; or why it is skipped; or None: it must wait. A post waits where its queue was too long
for one task, or where another session has locked one of its edits.
"""


@dataclass(slots=True)
class Pass:
    """What a pass decided. `contended`: indexes of posts that are still to be decided.

    `moves` are written with an audit row, `stays` too, and `outcomes` in the chunk's own row. `unchanged`: how many
    posts are where the job wants them, also those of a dry run. `events`: what the receiver of webhooks will hear, if
    there is one (`has_receiver`).
    """

    job: Work
    chunk: Chunk
    now: datetime
    soon: datetime
    has_receiver: bool
    moves: list[Moved] = field(default_factory=list)
    stays: list[Moved] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    unchanged: int = 0
    contended: list[int] = field(default_factory=list)
    follow_ups: FollowUps = field(default_factory=FollowUps)
    events: list[Event] = field(default_factory=list)
    drained: Drained | None = None

    def note(self, index: int, post: ScheduleFacts, goal: Move | Reason) -> None:
        """Sort one decision to where it is written."""
        if isinstance(goal, Reason):
            before = None if goal is Reason.NOT_FOUND else format_instant(post.scheduled_time)
            self.outcomes.append((index, goal.outcome, before, None, goal))
            return
        is_there = goal.at == post.scheduled_time and goal.timezone == post.timezone
        self.unchanged += is_there
        if self.job.dry_run:
            before, after = format_instant(post.scheduled_time), format_instant(goal.at)
            self.outcomes.append((index, Outcome.APPLIED, before, after, None))
        elif is_there:
            self.stays.append(Moved(self.chunk.first + index, post.id, *goal))
        else:
            self.moves.append(Moved(self.chunk.first + index, post.id, *goal))
            if self.has_receiver and goal.at != post.scheduled_time:
                self.events.append(self._event(index, post, goal))
            if goal.at <= self.soon and goal.at != post.scheduled_time and post.status == Status.GENERATED:
                self.follow_ups.publishes.append(Publish(post.id, post.schedule_revision + 1, goal.at))

    def _event(self, index: int, post: ScheduleFacts, goal: Move) -> Event:
        edit_id = reschedule_jobs.audit_id(self.job.id, self.chunk.first + index)
        both = post.scheduled_time, goal.at
        revision = post.revision + 1  # a move is one step (`lifecycle.moved`, `moves_store.move`)
        return events.rescheduled(
            self.job.workspace_id, post.id, revision, *both, editId=edit_id, rescheduleId=self.job.id
        )

    def committed(self) -> FollowUps:
        """Report the pass below its commit. Returned: what must be rung for."""
        if self.drained is not None:
            self.follow_ups.add(self.drained.committed())
        self.follow_ups.webhooks += [event.post_id for event in self.events]
        return self.follow_ups

    def step(self, chunks: int) -> Step:
        """What it adds to the job's counters; `chunks`: 1 if it is a chunk's first pass."""
        failed = sum(one[1] == Outcome.FAILED for one in self.outcomes)
        applied = sum(one[1] == Outcome.APPLIED for one in self.outcomes) + len(self.moves) + len(self.stays)
        skipped = len(self.outcomes) + len(self.moves) + len(self.stays) - failed - applied
        contended = len(self.contended) - len(self.chunk.contended)
        return Step(chunks, contended, applied, skipped, failed, self.unchanged)


def undecided(chunk: Chunk) -> list[int]:
    """Indexes of a new chunk's posts, without those that the freeze did not find."""
    decided = {one[0] for one in chunk.outcomes}
    return [index for index in range(len(chunk.post_ids)) if index not in decided]


def work(
    tx: Connection,
    job: Work,
    chunk: Chunk,
    indexes: Sequence[int],
    *,
    attempts: EditAttempts,
    when_locked: Literal["wait", "skip"] = "skip",
) -> Pass:
    """Decide and write these posts of a chunk. `Pass.outcomes`, for the chunk's own row, are the caller's to write."""
    index_of = {chunk.post_ids[index]: index for index in indexes}
    ids = list(index_of)
    around = reschedule_gap.line_up(tx, job, chunk)
    if job.dry_run:
        # The queues first: an edit that is applied between the two reads is then seen in its post. The other way round
        # it would be seen in neither.
        now, waiting = moves_store.moment(tx, ids)
        posts = posts_store.read_schedules(tx, ids)
    else:
        posts = posts_store.lock_schedules(tx, ids, when_locked)
        now, waiting = moves_store.moment(tx, [post.id for post in posts])
    soon = now + timedelta(seconds=settings().horizon)
    done = Pass(job, chunk, now, soon, has_receiver=webhooks_store.wanted())
    edited: dict[str, Current] = {}
    if waiting:
        edited = _predicted(tx, waiting) if job.dry_run else _drained(tx, waiting, attempts, done)
    aim = reschedules.aiming(reschedules.plan_of(job.plan), chunk.aims)
    decisions: list[Decision] = []
    for post in posts:
        index = index_of.pop(post.id)
        current = edited.get(post.id, post)
        if current is None:
            done.contended.append(index)
        elif isinstance(current, Reason):
            decisions.append(Decision(index, post, current))
        else:
            decisions.append(Decision(index, current, reschedules.decide(index, current, aim, now)))
    done.contended += index_of.values()
    if around is not None:
        undecided = {*done.contended, *chunk.contended} - {one.chunk_index for one in decisions}
        decisions, wait = reschedule_gap.keep_apart(tx, around, decisions, undecided)
        done.contended += wait
    for one in decisions:
        done.note(*one)
    if not job.dry_run:
        moves_store.move(tx, job, done.moves, now=now, soon=soon)
        moves_store.stay(tx, job, done.stays, now=now)
        webhooks_store.record(tx, done.events)
    return done


def _drained(tx: Connection, waiting: Sequence[str], attempts: EditAttempts, done: Pass) -> dict[str, Current]:
    """What the queued edits make of locked posts, applied by the same code as everywhere.

    A post whose queue has an isolated edit is not moved: run here, the edit could fail the whole chunk with it.
    """
    # The posts are locked already. This reads their whole rows, which only these few need.
    taken = batches.take(tx, waiting, EDITS_A_TASK, BYTES_A_TASK)
    done.drained = drain(tx, taken.locked, attempts, taken.queue)
    edited: dict[str, Current] = {post_id: reschedules.seen(facts) for post_id, facts in done.drained.posts.items()}
    edited |= dict.fromkeys((*taken.left, *done.drained.remaining, *done.drained.follow_ups.contended))
    return edited | _isolated(tx, done.drained.isolated)


def _isolated(tx: Connection, post_ids: Collection[str]) -> dict[str, Current]:
    """Posts whose queue has an edit that runs isolated: they wait, or they are skipped.

    They wait where that edit was started recently. A worker may be at it, or may be frozen at it and give its attempt
    back. If the worker died, the edit runs isolated within seconds, or it becomes `failed`. Where the edit was not
    started recently, no worker serves it, and the post is skipped.
    """
    if not post_ids:
        return {}
    recently = moves_store.started_recently(tx, post_ids, PERIODS_TO_WAIT * settings().rescue_period)
    return {post_id: None if post_id in recently else Reason.EDIT_WAITING for post_id in post_ids}


def _predicted(tx: Connection, waiting: Sequence[str]) -> dict[str, Current]:
    """What all queued edits will make of posts, without applying them.

    Posts wait that changed meanwhile, and posts for which no time was left.
    """
    predicted: dict[str, Current] = dict.fromkeys(waiting)
    deadline = time.monotonic() + PREDICTS_FOR
    for start in range(0, len(waiting), PREDICTED_AT_ONCE):
        predicted |= _predicted_at_once(tx, waiting[start : start + PREDICTED_AT_ONCE])
        if time.monotonic() > deadline:
            break
    return predicted


def _predicted_at_once(tx: Connection, waiting: Sequence[str]) -> dict[str, Current]:
    found, _ = posts_store.read_posts(tx, waiting)
    predicted: dict[str, Current] = {post_id: reschedules.seen(post.facts) for post_id, post in found.items()}
    isolated: set[str] = set()
    with closing(moves_store.waiting(tx, found)) as edits:
        for post_id, some in groupby(edits, attrgetter("post_id")):
            facts = found[post_id].facts
            for edit in some:
                if runs_isolated(edit.attempts, edit.deferrals):
                    isolated.add(post_id)
                decision = lifecycle.decide(facts, EditPatch.from_changes(edit.changes), edit.created_at, edit.if_match)
                if isinstance(decision, lifecycle.Apply):
                    facts = decision.after
            predicted[post_id] = reschedules.seen(facts)
    predicted |= _isolated(tx, isolated)
    for now in posts_store.read_schedules(tx, list(found)):
        if now != reschedules.seen(found[now.id].facts):
            predicted[now.id] = None
    return predicted
