"""DELETE /v1/posts: hide posts under their locks, each with a reason where it cannot be (SPEC 4)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.responses import Response

from api.context import Context, Unsure, context_of, storable
from api.http import authentication, reading
from api.http.reading import JSON_TYPES
from api.models.deletions import POSTS_MAX, Reason
from shared.broker import queue
from shared.domain import events, fields
from shared.domain.errors import Faults, InvalidRequest, Unavailable
from shared.domain.fields import UNSET
from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.times import format_instant
from shared.store import deletion as deletion_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store

router = APIRouter()

WAIT_FOR_HELD = 0.05


_OVER = {Status.POSTED: Reason.POSTED, Status.FAILED: Reason.FAILED}
_CLAIMED = {ClaimKind.PUBLISH: Reason.BEING_PUBLISHED, ClaimKind.RENDER: Reason.BEING_RENDERED}

UNSURE = "The posts may have been deleted; look at GET /v1/posts before you send this again"


@dataclass(slots=True)
class Deleted:
    """What became of posts: those deleted and when, reasons for others, the edits that ended, whose events to ring."""

    posts: list[str] = field(default_factory=list)
    at: datetime | None = None
    failed: dict[str, Reason] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@router.delete("/v1/posts")
async def delete_posts(request: Request) -> Response:
    """Delete posts that wait and that nothing holds; report the others."""
    context = context_of(request)
    key = await context.authenticated(request, authentication.WRITE)
    content = await reading.read_body(request)
    reading.check_media_type(request, JSON_TYPES)
    body = reading.parse_json(content)
    reading.check_query(request)
    post_ids = parse(body)
    wanted = [post_id for post_id in post_ids if storable(post_id)]
    done = await context.write(delete, key.workspace_id, wanted, unsure=UNSURE)
    await _delete_held(context, key.workspace_id, done)
    context.submission.waiting.look_up(done.ended)
    if done.told:
        context.ring(queue.ring_webhooks, done.told)
    return Response(to_json(_answer(post_ids, done)), media_type="application/json")


def parse(body: object) -> list[str]:
    """The ids of a body, each once, in its order. Raises InvalidRequest."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object with postIds")
    faults = Faults()
    fields.check_known(body, ("postIds",), faults)
    given = body.get("postIds", UNSET)
    if given is UNSET:
        faults.add("missing_required_fields", "postIds", "postIds is missing; send it")
        given = []
    elif not isinstance(given, list) or not 1 <= len(given) <= POSTS_MAX:
        faults.add("invalid_request", "postIds", f"postIds must be an array of 1 to {POSTS_MAX:,} post ids")
        given = []
    found = [fields.check_text(one, f"postIds[{place}]", faults) for place, one in enumerate(given)]
    faults.raise_if_any()
    return list(dict.fromkeys(post_id for post_id in found if post_id is not UNSET))


def delete(tx: Connection, workspace_id: str, post_ids: Sequence[str], wait: float | None = None) -> Deleted:
    """Lock, recheck, hide. Posts that somebody holds are left as `held`; with `wait`, they are waited for, that many
    seconds each. Another workspace's posts are never locked: even a lock could be noticed.
    """
    found, _ = posts_store.read_posts(tx, post_ids)
    own = [post_id for post_id, post in found.items() if post.workspace_id == workspace_id and not post.facts.deleted]
    done = Deleted(failed=dict.fromkeys(post_ids, Reason.NOT_FOUND) | dict.fromkeys(own, Reason.HELD))
    if wait is not None:
        posts_store.wait_at_most(tx, wait)
    locked = posts_store.lock_posts(tx, own, "skip" if wait is None else "wait")
    reasons = {post_id: refusal(post.facts) for post_id, post in locked.items()}
    going = [post for post_id, post in locked.items() if reasons[post_id] is None]
    done.failed |= {post_id: reason for post_id, reason in reasons.items() if reason is not None}
    if going:
        done.at = deletion_store.hide(tx, going)
        ends = deletion_store.reject_queue(tx, going)
        told = events.of_edits([end for _, end in ends], {end.id: locked[post_id] for post_id, end in ends})
        told += [events.deleted(post, done.at) for post in going]
        done.told = webhooks_store.record(tx, told)
        done.ended = [end.id for _, end in ends]
        done.posts = [post.facts.id for post in going]
        for post_id in done.posts:
            del done.failed[post_id]
    return done


def refusal(post: PostFacts) -> Reason | None:
    """Why a locked post is not deleted, or None: only unclaimed ones that still wait are. Pure."""
    if post.deleted:
        return Reason.NOT_FOUND
    return _OVER.get(post.status) or (_CLAIMED[post.claim] if post.claim is not None else None)


async def _delete_held(context: Context, workspace_id: str, done: Deleted) -> None:
    """Wait for held posts one by one, 50 ms in all; what is held still is reported so (SPEC 3.4)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_FOR_HELD
    for post_id in [post_id for post_id, reason in done.failed.items() if reason is Reason.HELD]:
        left = deadline - loop.time()
        if left <= 0:
            return
        try:
            late = await context.write(delete, workspace_id, [post_id], left, unsure=UNSURE)
        except Unsure:
            raise
        except Unavailable:
            # Its lock was not to be had in time.
            continue
        del done.failed[post_id]
        done.failed |= late.failed
        done.posts += late.posts
        done.at = done.at or late.at
        done.ended += late.ended
        done.told += late.told


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
