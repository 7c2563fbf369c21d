"""Apply the queued edits of some posts, under their locks: lock, read, decide, write, in that order."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.domain import events, lifecycle, posts
from shared.domain.edits import EditPatch
from shared.domain.lifecycle import EditStatus, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.queued_edits import EditResult, QueuedEdit
from shared.settings import settings
from shared.store import batches, db
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.db import transaction
from shared.store.edits import Queue
from shared.store.posts import Write
from shared.telemetry import logs, metrics
from worker import batch_limits
from worker.attempts import EditAttempts
from worker.batch_limits import BYTES_A_TASK, EDITS_A_TASK
from worker.follow_ups import FollowUps

WAIT_FOR_LOCKS = 0.05
"""Seconds that one task waits, in all, for posts that other sessions have locked."""


@dataclass(slots=True)
class Applied:
    """What a task did: the results of edits, the edits that were read, and what must be rung for below the commits.

    `announced`: how many of the results, the first ones, were announced already.
    """

    results: list[EditResult] = field(default_factory=list)
    announced: int = 0
    read: list[QueuedEdit] = field(default_factory=list)
    follow_ups: FollowUps = field(default_factory=FollowUps)

    def take(self, drained: "Drained") -> None:
        """Count a drained batch in; to be called when its transaction has been committed."""
        self.results += drained.results
        self.read += drained.read
        self.follow_ups.add(drained.committed())

    def summary(self) -> dict[str, int]:
        """A small dict for Flower: {"applied": 3, "rejected": 1, "contended": 2}."""
        counts = dict(Counter(result.status.value for result in self.results))
        contended = len(self.follow_ups.contended)
        return counts | ({"contended": contended} if contended else {})


@dataclass(slots=True)
class Drained:
    """One batch under its locks. `posts` are the facts as the batch leaves them.

    `isolated`: posts whose next edit runs in a transaction of its own. `remaining`: posts with edits for the next
    batch; the caller decides how it rings for them. `follow_ups.contended`: posts of which another session has locked
    an edit, which waits with all behind it.
    `read_at`: the database's clock as the queue was read; `read_mono`: the same moment in monotonic seconds.
    """

    posts: dict[str, PostFacts]
    results: list[EditResult] = field(default_factory=list)
    writes: dict[str, Write] = field(default_factory=dict)
    isolated: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    follow_ups: FollowUps = field(default_factory=FollowUps)
    read_at: datetime | None = None
    read: Sequence[QueuedEdit] = ()
    read_mono: float = 0.0

    @property
    def unfinished(self) -> set[str]:
        """Posts that still have queued edits after this batch."""
        return {*self.remaining, *self.isolated, *self.follow_ups.contended}

    def committed(self) -> FollowUps:
        """Report the results in metrics and logs, below the commit. Returned: what must be rung for."""
        metrics.edits_finalized(self.results, self.read, self.read_mono)
        logs.edits_finalized(self.results, self.read)
        return self.follow_ups


def drain(
    tx: Any, locked: dict[str, Post], attempts: EditAttempts, queue: Queue | None = None, *,
    isolated: bool = False, waited: float = 0.0, last: bool = False,
) -> Drained:  # fmt: skip
    """Decide and write the queued edits of locked posts, in order, in the caller's transaction.

    A post's queue is taken up to the first edit that runs isolated (worker/batch_limits.py). `isolated` takes only
    that edit, of one post. `waited`: seconds spent on the lock. `queue`: what the caller read of it, behind the lock.
    `last`: the caller runs nothing after this in its transaction, so that the writes may travel with the COMMIT.
    """
    if queue is None:
        queue = edits_store.queued_edits(tx, locked, 1 if isolated else EDITS_A_TASK, BYTES_A_TASK)
    drained = Drained({post_id: post.facts for post_id, post in locked.items()})
    drained.read, drained.read_mono = queue.edits, time.monotonic()
    drained.read_at = queue.edits[0].read_at if queue.edits else None
    truncated = False
    if isolated:
        taken = _unless_spent(queue.edits, drained)
    else:
        mine = batch_limits.share(queue.edits, drained.posts)
        taken, drained.isolated, truncated = mine.taken, mine.isolated, mine.left or queue.more
    begun = attempts.count(taken)
    follow_ups = drained.follow_ups
    if len(begun) < len(taken):
        ours = {edit.id for edit in begun}
        follow_ups.contended += dict.fromkeys(edit.post_id for edit in taken if edit.id not in ours)
    for edit in begun:
        _decide(edit, locked[edit.post_id], drained, round(waited * 1000))
    for post_id, after in drained.posts.items():
        before = locked[post_id].facts
        if after is not before:
            write = Write(before, after, _enqueue(before, after, drained.read_at))
            drained.writes[post_id] = write
            follow_ups.add_write(write, drained.read_at)
    wanted = webhooks_store.wanted()
    last = last and not truncated and not wanted
    batches.finalize(tx, list(drained.writes.values()), drained.results, last=last)
    if truncated:
        left = edits_store.posts_with_a_queue(tx, locked)
        # Isolated edits get a ring of their own below their commit, and contended posts are snoozed.
        drained.remaining = [post_id for post_id in left if post_id not in {*drained.isolated, *follow_ups.contended}]
    if wanted:
        happened = events.of_edits(drained.results, {edit.id: locked[edit.post_id] for edit in queue.edits})
        follow_ups.webhooks += webhooks_store.record(tx, happened)
    return drained


def _unless_spent(queue: Sequence[QueuedEdit], drained: Drained) -> list[QueuedEdit]:
    """The isolated edit; none where its attempts are spent: it then becomes `failed` without running again."""
    if queue and queue[0].attempts >= settings().edit_attempts:
        message = f"Gave up after {queue[0].attempts} attempts: each one stopped its worker or was too much for it"
        drained.results.append(EditResult(queue[0].id, EditStatus.FAILED, error_code="internal", error_message=message))
        return []
    return list(queue)


class NewerEditError(Exception):
    """An edit has fields that this worker does not know. It costs attempts and ends as `failed`, for a requeue."""


def _decide(edit: QueuedEdit, post: Post, drained: Drained, lock_wait_ms: int) -> None:
    facts = drained.posts[edit.post_id]
    if unknown := EditPatch.unknown_in(edit.changes):
        # Applied without them it would be lost without a word.
        raise NewerEditError(f"the API that accepted this edit is newer than this worker: {', '.join(unknown)}")
    patch = EditPatch.from_changes(edit.changes)
    decision = lifecycle.decide(facts, patch, edit.created_at, edit.if_match)
    if isinstance(decision, lifecycle.Reject):
        details = [{"field": detail.field, "message": detail.message} for detail in decision.details]
        result = EditResult(
            edit.id,
            EditStatus.REJECTED,
            facts.revision,
            error_code=decision.code,
            error_message=decision.message,
            error_details=details or None,
            lock_wait_ms=lock_wait_ms,
        )
    else:
        after = decision.after
        was, now = posts.difference(facts, after)
        body = posts.public_json(post, after)
        result = EditResult(edit.id, EditStatus.APPLIED, after.revision, was, now, body, lock_wait_ms=lock_wait_ms)
        drained.posts[edit.post_id] = after
    drained.results.append(result)


def _enqueue(before: PostFacts, after: PostFacts, now: datetime | None) -> Any:
    """What a change must ring for: a render of new content; a publish that moved, or that a dropped render frees."""
    if after.status is Status.PENDING_RENDER:
        return "render" if after.content_revision != before.content_revision else None
    released = after.status is not before.status or after.schedule_revision != before.schedule_revision
    within = now is not None and after.scheduled_time <= now + timedelta(seconds=settings().horizon)
    return "publish" if released and within else None


def apply_edits(
    post_ids: Iterable[str],
    announce: Callable[[Applied], object] | None = None,
    known: Callable[[Sequence[str]], Collection[str]] | None = None,
    *,
    on_record: bool = False,
) -> Applied:
    """Apply what is queued for these posts.

    Posts that another session has locked are skipped first, so that they delay their own edits only. Then each gets a
    transaction of its own, with 50 ms of waiting in all. Posts that are still locked come back in
    `follow_ups.contended`.
    `known` says for which of those a message under way will come back after this; this task does not wait for them.
    Where edits are left for later, `announce` gets what was applied so far at once: its clients need not wait.
    `on_record`: these posts stand in this worker's hand, so that first attempts are not counted before the work.
    """
    wanted = list(dict.fromkeys(post_ids))
    applied = Applied()
    try:
        with EditAttempts(on_record=on_record) as attempts, transaction() as tx:
            patience = WAIT_FOR_LOCKS if on_record else None
            taken = batches.take(tx, wanted, EDITS_A_TASK, BYTES_A_TASK, patience)
            missing = [post_id for post_id in wanted if post_id not in taken.locked]
            waiting = edits_store.posts_with_a_queue(tx, missing) if missing else []
            drained = drain(tx, taken.locked, attempts, taken.queue, last=True)
    except Exception as error:
        if not (on_record and db.lock_timed_out(error)):
            raise
        # A person has the row of an edit locked. Counting before the work finds which, and leaves it out.
        return apply_edits(wanted, announce, known)
    applied.take(drained)
    left = set(taken.left)
    contended = [post_id for post_id in waiting if post_id not in left]
    applied.follow_ups.edits += [*drained.remaining, *taken.left]
    isolated = drained.isolated

    if announce and (contended or isolated):
        announce(applied)
        applied.announced = len(drained.results)
    not_waited_for = known(contended) if known and contended else ()
    applied.follow_ups.contended += not_waited_for
    deadline = time.monotonic() + WAIT_FOR_LOCKS
    for post_id in contended:
        if post_id not in not_waited_for:
            isolated += _apply_contended(post_id, applied, deadline, on_record=on_record)
    for post_id in isolated:
        _apply_isolated(post_id, applied)
    return applied


def _apply_contended(post_id: str, applied: Applied, deadline: float, *, on_record: bool) -> list[str]:
    """Wait for one locked post until the deadline. Returned: its id, if the head of its queue runs isolated."""
    started = time.monotonic()
    if started >= deadline:
        applied.follow_ups.contended.append(post_id)
        return []
    try:
        with EditAttempts(on_record=on_record) as attempts, transaction() as tx:
            posts_store.wait_at_most(tx, deadline - started)
            locked = posts_store.lock_posts(tx, [post_id], "wait")
            drained = drain(tx, locked, attempts, waited=time.monotonic() - started, last=True)
    except Exception as error:
        if not db.lock_timed_out(error):
            raise
        applied.follow_ups.contended.append(post_id)
        return []
    applied.take(drained)
    applied.follow_ups.edits += drained.remaining
    return drained.isolated


def _apply_isolated(post_id: str, applied: Applied) -> None:
    """Run the head of one post's queue in a transaction and a count of its own, then ring for the rest."""
    try:
        with EditAttempts(isolated=True) as attempts, transaction() as tx:
            locked = posts_store.lock_posts(tx, [post_id], "skip")
            drained = drain(tx, locked, attempts, isolated=True)
            rest = edits_store.posts_with_a_queue(tx, [post_id])
    except Exception as error:
        if not db.lock_timed_out(error):
            raise
        applied.follow_ups.contended.append(post_id)
        return
    applied.take(drained)
    if not locked:
        applied.follow_ups.contended += rest
    elif not drained.follow_ups.contended:
        applied.follow_ups.edits += rest
