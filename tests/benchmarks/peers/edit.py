"""The edit that every peer makes: lock the post, recheck it, change it, write the audit row, commit once."""

import json
import os
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, create_engine, func, insert, select, update

from shared.domain.ids import new_id
from shared.domain.times import format_instant
from shared.local import die_with_parent
from shared.store.tables import edits, posts

# Pool children are forked by other people's code: they too must not outlive the benchmark.
die_with_parent.die_with_parent()

# As many as there are threads that may ask at once, so that none waits for a connection; each opens what it uses.
engine = create_engine(os.environ["REDRAFT_DATABASE_URL"], pool_size=40, max_overflow=0)

EDITABLE = ("pending_render", "generated")

_LOCK = (
    select(
        *(posts.c.id, posts.c.account_id, posts.c.platform, posts.c.content_type, posts.c.content_url),
        *(posts.c.thumbnail_url, posts.c.caption, posts.c.sound_id, posts.c.timezone, posts.c.scheduled_time),
        *(posts.c.status, posts.c.created_at, posts.c.claim_kind, posts.c.revision, posts.c.workspace_id),
    )
    .where(posts.c.id == bindparam("wanted"), posts.c.deleted_at.is_(None))
    .with_for_update(key_share=True)  # FOR NO KEY UPDATE
)
_CHANGE = (
    update(posts)
    .where(posts.c.id == bindparam("wanted"))
    .values(caption=bindparam("new_caption"), revision=posts.c.revision + 1)
)
_MOVE = (
    update(posts)
    .where(posts.c.id == bindparam("wanted"))
    .values(
        scheduled_time=bindparam("new_time"),
        revision=posts.c.revision + 1,
        schedule_revision=posts.c.schedule_revision + 1,
    )
)
_AUDIT = insert(edits).values(
    id=bindparam("edit_id"), requested_by="bench", status="applied", finalized_at=func.clock_timestamp()
)


def apply(edit_id: str, post_id: str, caption: str, *, keep_result: bool = False) -> dict[str, Any]:
    """One edit. What to answer: status, and for a 200 the body with the public fields and the revision.

    `keep_result` stores the body in the audit row, for queues that carry no result back.
    """
    with engine.begin() as tx:
        post = tx.execute(_LOCK, {"wanted": post_id}).one_or_none()
        if post is None:
            return {"status": 404, "error": f"Post {post_id} not found"}
        if post.status not in EDITABLE or post.claim_kind == "publish":
            return {"status": 409, "error": "Only posts with status 'generated' or 'pending_render' can be edited"}
        body = json.dumps(_public(post, caption))
        tx.execute(_CHANGE, {"wanted": post_id, "new_caption": caption})
        tx.execute(
            _AUDIT,
            {
                "edit_id": edit_id,
                "post_id": post_id,
                "workspace_id": post.workspace_id,
                "changes": {"caption": caption},
                "revision": post.revision + 1,
                "before": {"caption": post.caption},
                "after": {"caption": caption},
                "result": body if keep_result else None,
            },
        )
    return {"status": 200, "edit_id": edit_id, "revision": post.revision + 1, "body": body}


def move(post_id: str, seconds: float) -> None:
    """Move one post's time, as one item of a bulk job: the same lock, recheck, audit row and commit."""
    with engine.begin() as tx:
        post = tx.execute(_LOCK, {"wanted": post_id}).one()
        if post.status not in EDITABLE or post.claim_kind == "publish":
            return
        after = post.scheduled_time + timedelta(seconds=seconds)
        tx.execute(_MOVE, {"wanted": post_id, "new_time": after})
        tx.execute(
            _AUDIT,
            {
                "edit_id": new_id("edit"),
                "post_id": post_id,
                "workspace_id": post.workspace_id,
                "changes": {"scheduledTime": format_instant(after)},
                "revision": post.revision + 1,
                "before": {"scheduledTime": format_instant(post.scheduled_time)},
                "after": {"scheduledTime": format_instant(after)},
                "result": None,
            },
        )


def _public(post: Any, caption: str) -> dict[str, Any]:
    return {
        "postId": post.id,
        "accountId": post.account_id,
        "platform": post.platform,
        "contentType": post.content_type,
        "contentUrl": post.content_url,
        "thumbnailUrl": post.thumbnail_url,
        "caption": caption,
        "soundId": post.sound_id,
        "timezone": post.timezone,
        "scheduledTime": format_instant(post.scheduled_time),
        "status": post.status,
        "createdAt": format_instant(post.created_at),
    }
