"""What the receiver of webhooks is told: types and data, never a caption (SPEC 6)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.lifecycle import EditStatus
from shared.posts import Post
from shared.store.edits import End
from shared.times import format_instant


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a post. `data` holds workspaceId, postId and what the type needs."""

    type: str
    workspace_id: str
    post_id: str
    data: dict[str, Any]


def _event(kind: str, post: Post, **data: Any) -> Event:
    return Event(
        kind, post.workspace_id, post.facts.id, {"workspaceId": post.workspace_id, "postId": post.facts.id} | data
    )


def of_edits(ends: Iterable[End], posts_of: Mapping[str, Post]) -> list[Event]:
    """The ends of edits, in their order; `posts_of`: an edit's id -> its post. A move is told after its edit."""
    told: list[Event] = []
    for end in ends:
        post = posts_of[end.id]
        if end.status is EditStatus.APPLIED:
            told.append(_event("edit.applied", post, editId=end.id, revision=end.revision))
        else:
            error = {"code": end.error_code, "message": end.error_message}
            told.append(_event(f"edit.{end.status.value}", post, editId=end.id, error=error))
        if end.before and end.after and "scheduledTime" in end.after:
            both = {"before": end.before["scheduledTime"], "after": end.after["scheduledTime"]}
            told.append(_event("post.rescheduled", post, editId=end.id, **both))
    return told


def rescheduled(workspace_id: str, post_id: str, before: datetime, after: datetime, **data: Any) -> Event:
    """A bulk job moved the post; `data` may hold editId and rescheduleId."""
    both = {"before": format_instant(before), "after": format_instant(after)}
    said = {"workspaceId": workspace_id, "postId": post_id}
    return Event("post.rescheduled", workspace_id, post_id, said | both | data)


def posted(post: Post, posted_at: datetime, platform_post_id: str | None) -> Event:
    """The post went out. `post` as it was when it was claimed."""
    return _event(
        "post.posted",
        post,
        scheduledTime=format_instant(post.facts.scheduled_time),
        postedAt=format_instant(posted_at),
        platformPostId=platform_post_id,
    )


def failed(post: Post, reason: str) -> Event:
    """A render or a publish gave up."""
    return _event("post.failed", post, scheduledTime=format_instant(post.facts.scheduled_time), reason=reason)


def deleted(post: Post, deleted_at: datetime) -> Event:
    """A client deleted the post."""
    return _event("post.deleted", post, deletedAt=format_instant(deleted_at))
