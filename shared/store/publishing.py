"""Publish now: an edit that sets the time of a post that waits to the moment of its acceptance (docs/lifecycle.md)."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shared.domain import errors, lifecycle
from shared.domain.edits import EditPatch
from shared.domain.errors import Conflict, Detail, NotFound, PreconditionFailed
from shared.domain.ids import new_id
from shared.domain.lifecycle import BEING_PUBLISHED, etag
from shared.domain.posts import Post
from shared.domain.times import format_instant
from shared.store import acts as acts_store
from shared.store import edits as edits_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store.acts import Act, Actor
from shared.store.edits import NewEdit

AT_ONCE: Final = EditPatch(at_once=True)


def record(tx: Connection, new: NewEdit, hopeless: PreconditionFailed | None = None) -> datetime:
    """Record the edit, unless it would be refused as the post is now; the moment of its acceptance. `hopeless`: the
    error of preconditions that no post meets. The worker judges all of it under the lock.

    Raises NotFound, CannotEdit, Conflict, PreconditionFailed.
    """
    found, now = posts_store.read_posts(tx, [new.post_id])
    post = found.get(new.post_id)
    if post is None or now is None or post.workspace_id != new.workspace_id:
        raise NotFound.post(new.post_id)
    _refuse(tx, post, now)
    lifecycle.check_met(new.if_match, hopeless, post.facts.revision)
    edits_store.insert_edits(tx, [new], now)
    return now


def _refuse(tx: Connection, post: Post, now: datetime) -> None:
    decision = lifecycle.decide(post.facts, AT_ONCE, now)
    if isinstance(decision, lifecycle.Reject):
        error = errors.restored(decision.code, decision.message, decision.details)
        raise _cannot_go(error) if isinstance(error, errors.CannotEdit) else error
    hold = holds_store.effective(tx, [post.facts.id]).get(post.facts.id)
    if hold is not None and hold.missed:
        hold = hold.above
    if hold is not None:
        details = [Detail("held", hold.level.value)]
        raise Conflict(f"Post {post.facts.id} is held, of its {hold.level}; resume that first", details=details)


def _cannot_go(error: errors.CannotEdit) -> errors.RedraftError:
    """The same refusal, in the words of "publish now"."""
    if error.label == BEING_PUBLISHED:
        why = "The post is being published already; GET it to see how that ends"
    else:
        why = "Only posts with status 'generated' or 'pending_render' can be published now"
    return errors.restored(error.code, why, error.details)


def by_operator(tx: Connection, post_id: str, actor: Actor, seen: int | None = None) -> str:
    """The same for an operator, kept in `acts`; the edit's id. `seen`: the only revision at which the post goes out.

    Raises as `record` does, and PreconditionFailed for another revision.
    """
    post = posts_store.read_posts(tx, [post_id])[0].get(post_id)
    if post is None:
        raise NotFound.post(post_id)
    new = NewEdit(
        id=new_id("edit"),
        post_id=post_id,
        workspace_id=post.workspace_id,
        changes=AT_ONCE.changes(),
        if_match=None if seen is None else (etag(seen),),
        api_key_id=actor.api_key_id,
        requested_by=actor.name,
        request_id=actor.request_id,
    )
    record(tx, new)
    before = {"scheduledTime": format_instant(post.facts.scheduled_time)}
    act = Act(acts_store.PUBLISH, "post", post_id, post.workspace_id, post.facts.status, before)
    acts_store.record(tx, actor, [act])
    return new.id
