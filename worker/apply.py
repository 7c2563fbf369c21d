"""Apply the queued edits of some posts, under their locks: lock, read, decide, write, in that order (SPEC 3, 7)."""

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
from worker.attempts import Attempts
from worker.batch_limits import BYTES_A_TASK, EDITS_A_TASK

WAIT_FOR_HELD = 0.05


@dataclass(slots=True)
class Applied:
    """What a task did, and what must be rung below its commits. `publishes`: (post, schedule revision, when).

    `announced`: so many of the ends, the first ones, were told of already.
    """

    ends: list[EditResult] = field(default_factory=list)
    announced: int = 0
    publishes: list[tuple[str, int, datetime | None]] = field(default_factory=list)
    renders: list[tuple[str, int]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    read: list[QueuedEdit] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def take(self, drained: "Drained") -> None:
        """Count a drained batch in; to be called when its transaction has been committed."""
        self.ends += drained.ends
        self.read += drained.read
        self.told += drained.told
        self.held += drained.held
        metrics.edits_finalized(drained.ends, drained.read, drained.read_mono)
        logs.edits_finalized(drained.ends, drained.read)
        for write in drained.writes.values():
            self.follow(write, drained.read_at)

    def follow(self, write: Write, now: datetime | None) -> None:
        after = write.after
        if write.enqueue == "render":
            self.renders.append((after.id, after.content_revision))
        elif write.enqueue == "publish":
            due = now is not None and after.scheduled_time <= now
            self.publishes.append((after.id, after.schedule_revision, None if due else after.scheduled_time))

    def summary(self) -> dict[str, int]:
        """A small dict for Flower: {"applied": 3, "rejected": 1, "held": 0}."""
        counts = dict(Counter(end.status.value for end in self.ends))
        return counts | ({"held": len(self.held)} if self.held else {})


@dataclass(slots=True)
class Drained:
    """One batch under its locks. `posts` are the facts as the batch leaves them; `tried` have a head to run alone;
    of those `held` somebody else has locked an edit, which waits with all behind it; `more` have edits for the next
    batch.
    """

    posts: dict[str, PostFacts]
    ends: list[EditResult] = field(default_factory=list)
    writes: dict[str, Write] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    read_at: datetime | None = None
    told: list[str] = field(default_factory=list)
    read: Sequence[QueuedEdit] = ()
    read_mono: float = 0.0


def drain(
    tx: Any, locked: dict[str, Post], attempts: Attempts, queue: Queue | None = None, *,
    alone: bool = False, waited: float = 0.0,
) -> Drained:  # fmt: skip
    """Decide and write the queued edits of locked posts, in order, in the caller's transaction.

    A post's queue is taken up to the first edit that runs alone (worker/batch_limits.py). `alone` takes just such a
    head, of one post. `waited`: seconds spent on the lock. `queue`: what was read of it already, behind the lock.
    """
    if queue is None:
        queue = edits_store.queued_edits(tx, locked, 1 if alone else EDITS_A_TASK, BYTES_A_TASK)
    drained = Drained({post_id: post.facts for post_id, post in locked.items()})
    drained.read, drained.read_mono = queue.edits, time.monotonic()
    drained.read_at = queue.edits[0].read_at if queue.edits else None
    cut = False
    if alone:
        taken = _alone(queue.edits, drained)
    else:
        mine = batch_limits.share(queue.edits, drained.posts)
        taken, drained.tried, cut = mine.taken, mine.alone, mine.left or queue.more
    begun = attempts.count(taken)
    if len(begun) < len(taken):
        ours = {edit.id for edit in begun}
        drained.held = list(dict.fromkeys(edit.post_id for edit in taken if edit.id not in ours))
    for edit in begun:
        _decide(edit, locked[edit.post_id], drained, round(waited * 1000))
    for post_id, after in drained.posts.items():
        before = locked[post_id].facts
        if after is not before:
            drained.writes[post_id] = Write(before, after, _follow_up(before, after, drained.read_at))
    batches.finalize(tx, list(drained.writes.values()), drained.ends)
    if cut:
        left = edits_store.posts_with_a_queue(tx, locked)
        # What runs alone is followed by a ring of its own, and held posts are come back to.
        drained.more = [post_id for post_id in left if post_id not in {*drained.tried, *drained.held}]
    if webhooks_store.wanted():
        told = events.of_edits(drained.ends, {edit.id: locked[edit.post_id] for edit in queue.edits})
        drained.told = webhooks_store.record(tx, told)
    return drained


def _alone(queue: Sequence[QueuedEdit], drained: Drained) -> list[QueuedEdit]:
    """The head of one post's queue; none where its attempts are spent: then it ends as failed, unrun."""
    if queue and queue[0].attempts >= settings().edit_attempts:
        message = f"Gave up after {queue[0].attempts} attempts, each of which ended its worker or was too much for one"
        drained.ends.append(EditResult(queue[0].id, EditStatus.FAILED, error_code="internal", error_message=message))
        return []
    return list(queue)


def _decide(edit: QueuedEdit, post: Post, drained: Drained, lock_wait_ms: int) -> None:
    facts = drained.posts[edit.post_id]
    patch = EditPatch.from_changes(edit.changes)
    decision = lifecycle.decide(facts, patch, edit.created_at, edit.if_match)
    if isinstance(decision, lifecycle.Reject):
        details = [{"field": detail.field, "message": detail.message} for detail in decision.details]
        end = EditResult(
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
        result = posts.public_json(post, after)
        end = EditResult(
            edit.id, EditStatus.APPLIED, after.revision, was, now, result, lock_wait_ms=lock_wait_ms
        )  # fmt: skip
        drained.posts[edit.post_id] = after
    drained.ends.append(end)


def _follow_up(before: PostFacts, after: PostFacts, now: datetime | None) -> Any:
    """What a change must ring: a render of new content; a publish that moved, or that a dropped render frees."""
    if after.status is Status.PENDING_RENDER:
        return "render" if after.content_revision != before.content_revision else None
    released = after.status is not before.status or after.schedule_revision != before.schedule_revision
    within = now is not None and after.scheduled_time <= now + timedelta(seconds=settings().horizon)
    return "publish" if released and within else None


def apply_edits(
    post_ids: Iterable[str],
    tell: Callable[[Sequence[EditResult]], object] | None = None,
    known: Callable[[Sequence[str]], Collection[str]] | None = None,
) -> Applied:
    """Apply what is queued for these posts.

    Posts that somebody else holds are skipped first, so that they delay their own edits only; then each gets a
    transaction of its own, 50 ms of waiting in all; what is still held is in `held`, to be rung again (SPEC 3.4).
    Those that are `known` to be held, and to be tried again after this, are not waited for.
    Where anything is left for later, `tell` hears at once how the others ended: they, and what was recorded since,
    wait for nobody.
    """
    wanted = list(dict.fromkeys(post_ids))
    applied = Applied()
    with Attempts() as attempts, transaction() as tx:
        taken = batches.take(tx, wanted, EDITS_A_TASK, BYTES_A_TASK)
        drained = drain(tx, taken.locked, attempts, taken.queue)
        missing = [post_id for post_id in wanted if post_id not in taken.locked]
        waiting = edits_store.posts_with_a_queue(tx, missing) if missing else []
    applied.take(drained)
    left = set(taken.left)
    held = [post_id for post_id in waiting if post_id not in left]
    applied.more += [*drained.more, *taken.left]
    tried = drained.tried

    if tell and (held or tried):
        tell(drained.ends)
        applied.announced = len(drained.ends)
    known_held = known(held) if known and held else ()
    applied.held += known_held
    deadline = time.monotonic() + WAIT_FOR_HELD
    for post_id in held:
        if post_id not in known_held:
            tried += _apply_held(post_id, applied, deadline)
    for post_id in tried:
        _apply_tried(post_id, applied)
    return applied


def _apply_held(post_id: str, applied: Applied, deadline: float) -> list[str]:
    """Wait for one held post until the deadline; its id if the head of its queue wants to run alone."""
    started = time.monotonic()
    if started >= deadline:
        applied.held.append(post_id)
        return []
    try:
        with Attempts() as attempts, transaction() as tx:
            posts_store.wait_at_most(tx, deadline - started)
            locked = posts_store.lock_posts(tx, [post_id], "wait")
            drained = drain(tx, locked, attempts, waited=time.monotonic() - started)
    except Exception as error:
        if not db.lock_timed_out(error):
            raise
        applied.held.append(post_id)
        return []
    applied.take(drained)
    applied.more += drained.more
    return drained.tried


def _apply_tried(post_id: str, applied: Applied) -> None:
    """Run the head of one post's queue in a transaction and a count of its own, then ring for the rest."""
    try:
        with Attempts(alone=True) as attempts, transaction() as tx:
            locked = posts_store.lock_posts(tx, [post_id], "skip")
            drained = drain(tx, locked, attempts, alone=True)
            rest = edits_store.posts_with_a_queue(tx, [post_id])
    except Exception as error:
        if not db.lock_timed_out(error):
            raise
        applied.held.append(post_id)
        return
    applied.take(drained)
    if not locked:
        applied.held += rest
    elif not drained.held:
        applied.more += rest
