"""Webhook events: their types and data, never a caption (docs/services.md)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain.holds import Hold, Holds, in_effect
from shared.domain.lifecycle import EditStatus
from shared.domain.posts import Post
from shared.domain.queued_edits import EditResult
from shared.domain.reschedule_jobs import Job
from shared.domain.times import format_instant


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a post. `data` holds workspaceId, postId, the post's revision as it left the post, and
    what the type needs; its delivery adds the sequence number.

    The end of a bulk job is an event too. It has no post: `post_id`, by which events are put in order, is the job's id.
    """

    type: str
    workspace_id: str
    post_id: str
    data: dict[str, Any]


def _event(kind: str, post: Post, revision: int | None, **data: Any) -> Event:
    """`revision` None: the one that the post has."""
    facts = post.facts
    said = {"workspaceId": post.workspace_id, "postId": facts.id, "revision": revision or facts.revision}
    return Event(kind, post.workspace_id, facts.id, said | data)


def of_edits(results: Iterable[EditResult], posts_of: Mapping[str, Post]) -> list[Event]:
    """The events of edit results, in their order; `posts_of`: edit id -> post. A move follows the event of its edit."""
    found: list[Event] = []
    for end in results:
        post = posts_of[end.id]
        if end.status is EditStatus.APPLIED:
            found.append(_event("edit.applied", post, end.revision, editId=end.id))
        else:
            error = {"code": end.error_code, "message": end.error_message}
            found.append(_event(f"edit.{end.status.value}", post, end.revision, editId=end.id, error=error))
        if end.before and end.after and "scheduledTime" in end.after:
            both = {"before": end.before["scheduledTime"], "after": end.after["scheduledTime"]}
            found.append(_event("post.rescheduled", post, end.revision, editId=end.id, **both))
    return found


def rescheduled(
    workspace_id: str, post_id: str, revision: int, before: datetime, after: datetime, **data: Any
) -> Event:  # fmt: skip
    """A bulk job moved the post, which has that revision now; `data` may hold editId and rescheduleId."""
    both = {"before": format_instant(before), "after": format_instant(after)}
    said = {"workspaceId": workspace_id, "postId": post_id, "revision": revision}
    return Event("post.rescheduled", workspace_id, post_id, said | both | data)


def reschedule_finished(workspace_id: str, job: Job) -> Event:
    """A bulk job is done, canceled or failed. A job has this one event only."""
    data = {
        "workspaceId": workspace_id,
        "rescheduleId": job.id,
        "status": job.status.value,
        "dryRun": job.dry_run,
        "total": job.total,
        "applied": job.applied,
        "unchanged": job.unchanged,
        "skipped": job.skipped,
        "failed": job.failed,
        "finishedAt": format_instant(job.finished_at) if job.finished_at else None,
    }
    return Event("reschedule.finished", workspace_id, job.id, data)


def posted(post: Post, revision: int, posted_at: datetime, platform_post_id: str | None) -> Event:
    """The post went out, and has that revision now. `post` as it was when it was claimed."""
    return _event(
        "post.posted",
        post,
        revision,
        scheduledTime=format_instant(post.facts.scheduled_time),
        postedAt=format_instant(posted_at),
        platformPostId=platform_post_id,
    )


def failed(post: Post, revision: int, reason: str) -> Event:
    """A render or a publish gave up; the post has that revision now."""
    return _event("post.failed", post, revision, scheduledTime=format_instant(post.facts.scheduled_time), reason=reason)


def deleted(post: Post, deleted_at: datetime) -> Event:
    """A client deleted the post."""
    return _event("post.deleted", post, None, deletedAt=format_instant(deleted_at))


def hold_changed(post: Post, holds: Holds) -> Event:
    """A hold of the post by itself began, went on as missed, or ended. `holds`: what holds it now."""
    hold = in_effect(Holds(holds.own, holds.missed_revision, holds.missed_at), post.facts.schedule_revision)
    if hold is None:
        return _event("post.resumed", post, None, accountId=post.account_id, of="post")
    return _event("post.held", post, None, accountId=post.account_id, **hold.public())


def scope_held(workspace_id: str, account_id: str | None, hold: Hold) -> Event:
    """An account or a workspace is held: one event for all its posts, in the queue of that id."""
    return _of_scope("post.held", workspace_id, account_id, **hold.public())


def scope_resumed(workspace_id: str, account_id: str | None, hold: Hold) -> Event:
    """The hold of an account or a workspace ended."""
    return _of_scope("post.resumed", workspace_id, account_id, of=hold.level.value)


def _of_scope(kind: str, workspace_id: str, account_id: str | None, **data: Any) -> Event:
    said = {"workspaceId": workspace_id, "accountId": account_id, "postId": None, "revision": None}
    return Event(kind, workspace_id, account_id or workspace_id, said | data)
