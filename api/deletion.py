"""DELETE of one post or of many: hides them under their locks, and says why a post stays (docs/api.md)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from api import posts
from api.context import Context, Here, Unsure, Writer, storable
from api.http import problems
from api.http.headers import Preconditions
from api.http.json_answer import JsonAnswer
from api.http.reading import JsonBody, NoBody, NoQuery, OnlyPreconditions
from api.models.deletion import Deletion, DeletionReport, Reason
from api.models.openapi import takes
from shared.domain import events
from shared.domain.body_reading import read
from shared.domain.errors import Conflict, Detail, NotFound, Unavailable
from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.times import format_instant
from shared.store import deletion as deletion_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store

router = APIRouter(tags=["posts"], responses=problems.LOCKED)

WAIT_FOR_LOCKED = 0.05
"""Seconds for all locks of a request together."""

_OVER = {Status.POSTED: Reason.POSTED, Status.FAILED: Reason.FAILED}
_CLAIMED = {ClaimKind.PUBLISH: Reason.BEING_PUBLISHED, ClaimKind.RENDER: Reason.BEING_RENDERED}

NONE: Final = Preconditions()
UNSURE = "The posts may have been deleted; look at GET /v1/posts before you send this again"
UNSURE_OF_ONE = "The post may have been deleted; look at GET /v1/posts/{postId} before you send this again"

_WAITING_ONLY = "Only posts with status 'generated' or 'pending_render' can be deleted"
CONFLICTS: Final[Mapping[Reason, tuple[str, str]]] = {
    Reason.POSTED: ("posted", _WAITING_ONLY),
    Reason.FAILED: ("failed", _WAITING_ONLY),
    Reason.BEING_PUBLISHED: ("being published", "The post is being published; GET it to see how that ends"),
    Reason.BEING_RENDERED: ("being rendered", "The post is being rendered; delete it when its render has ended"),
    Reason.LOCKED_ELSEWHERE: ("locked", "Another transaction has the post locked at this moment; send this again"),
}
"""Why one post was not deleted: the label in the details of its 409, and the message."""


@dataclass(slots=True)
class Deleted:
    """What became of posts: the deleted ones and when, and the reasons for the others.

    `finalized` are the edits that the deletion rejected, `webhooks` the posts that have new events.
    """

    posts: list[str] = field(default_factory=list)
    at: datetime | None = None
    failed: dict[str, Reason] = field(default_factory=dict)
    finalized: list[str] = field(default_factory=list)
    webhooks: list[str] = field(default_factory=list)


@router.delete(
    "/v1/posts",
    response_model=DeletionReport,
    responses=problems.refuses(413, 415),
    openapi_extra=takes(body=Deletion),
)
async def delete_posts(context: Here, key: Writer, body: JsonBody, _: NoQuery) -> Response:
    """Delete posts that wait and that no render or publish has claimed; each other one is reported with its reason."""
    post_ids = list(dict.fromkeys(read(Deletion, body).post_ids))
    done = await _deleted(context, key.workspace_id, post_ids, UNSURE)
    return JsonAnswer(_answer(post_ids, done))


@router.delete(
    posts.ONE,
    status_code=204,
    response_description="The post is deleted",
    responses=problems.refuses(404, 409, 412, 413, 415),
    openapi_extra=takes("If-Match", "If-None-Match"),
)
async def delete_post(post_id: str, context: Here, key: Writer, _body: NoBody, wanted: OnlyPreconditions) -> Response:
    """Delete one post that waits and that no render or publish has claimed."""
    done = await _deleted(context, key.workspace_id, [post_id], UNSURE_OF_ONE, wanted)
    if done.posts:
        return Response(status_code=204)
    reason = done.failed.get(post_id, Reason.NOT_FOUND)
    if reason is Reason.NOT_FOUND:
        raise NotFound.post(post_id)
    label, message = CONFLICTS[reason]
    raise Conflict(message, details=[Detail("status", label)])


async def _deleted(
    context: Context, workspace_id: str, post_ids: Sequence[str], unsure: str, preconditions: Preconditions = NONE
) -> Deleted:
    """Delete these posts, tell the requests that wait for their edits, and ring for the events."""
    wanted = [post_id for post_id in post_ids if storable(post_id)]
    done = await context.write(delete, workspace_id, wanted, None, preconditions, unsure=unsure)
    await _delete_contended(context, workspace_id, done, unsure, preconditions)
    context.submission.waiting.look_up(done.finalized)
    context.ring(webhooks=done.webhooks)
    return done


def delete(
    tx: Connection,
    workspace_id: str,
    post_ids: Sequence[str],
    wait: float | None = None,
    preconditions: Preconditions = NONE,
) -> Deleted:
    """Lock, recheck, hide. A post that is locked elsewhere stays, with Reason.LOCKED_ELSEWHERE.

    `wait`: seconds to wait for each lock; None: do not wait. Another workspace's posts are never locked: it could
    notice even a lock. Raises PreconditionFailed for a post that would be deleted without `preconditions`.
    """
    found, _ = posts_store.read_posts(tx, post_ids)
    own = [post_id for post_id, post in found.items() if post.workspace_id == workspace_id and not post.facts.deleted]
    done = Deleted(failed=dict.fromkeys(post_ids, Reason.NOT_FOUND) | dict.fromkeys(own, Reason.LOCKED_ELSEWHERE))
    if wait is not None:
        posts_store.wait_at_most(tx, wait)
    locked = posts_store.lock_posts(tx, own, "skip" if wait is None else "wait")
    reasons = {post_id: refusal(post.facts) for post_id, post in locked.items()}
    going = [post for post_id, post in locked.items() if reasons[post_id] is None]
    done.failed |= {post_id: reason for post_id, reason in reasons.items() if reason is not None}
    for post in going:
        preconditions.judge(post.facts.revision)
    if going:
        done.at = deletion_store.hide(tx, going)
        rejected = deletion_store.reject_queue(tx, going)
        news = events.of_edits([end for _, end in rejected], {end.id: locked[post_id] for post_id, end in rejected})
        news += [events.deleted(post, done.at) for post in going]
        done.webhooks = webhooks_store.record(tx, news)
        done.finalized = [end.id for _, end in rejected]
        done.posts = [post.facts.id for post in going]
        for post_id in done.posts:
            del done.failed[post_id]
    return done


def refusal(post: PostFacts) -> Reason | None:
    """Why a post is not deleted, or None: only unclaimed posts that still wait are deleted. Pure."""
    if post.deleted:
        return Reason.NOT_FOUND
    return _OVER.get(post.status) or (_CLAIMED[post.claim] if post.claim is not None else None)


async def _delete_contended(
    context: Context, workspace_id: str, done: Deleted, unsure: str, preconditions: Preconditions
) -> None:
    """Wait for posts that are locked elsewhere, one by one, WAIT_FOR_LOCKED in all; report those that stay locked."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_FOR_LOCKED
    for post_id in [post_id for post_id, reason in done.failed.items() if reason is Reason.LOCKED_ELSEWHERE]:
        left = deadline - loop.time()
        if left <= 0:
            return
        try:
            then = await context.write(delete, workspace_id, [post_id], left, preconditions, unsure=unsure)
        except Unsure:
            raise
        except Unavailable:
            # Still locked elsewhere.
            continue
        del done.failed[post_id]
        done.failed |= then.failed
        done.posts += then.posts
        done.at = done.at or then.at
        done.finalized += then.finalized
        done.webhooks += then.webhooks


def _answer(post_ids: Sequence[str], done: Deleted) -> dict[str, Any]:
    deleted = set(done.posts)
    return {
        "deleted": [post_id for post_id in post_ids if post_id in deleted],
        "failed": [
            {"postId": post_id, "reason": done.failed.get(post_id, Reason.NOT_FOUND)}
            for post_id in post_ids
            if post_id not in deleted
        ],
        "deletedAt": format_instant(done.at) if done.at else None,
    }
