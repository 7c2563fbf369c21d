"""A post as clients see it: the public fields, in one order, built in one place. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from shared.domain.edits import PLAIN
from shared.domain.holds import Hold
from shared.domain.lifecycle import AUDITED, PostFacts, cannot_edit
from shared.domain.times import format_instant


@dataclass(slots=True)
class Post:
    """A post's row. `facts` is what decisions read; the rest is carried along. Times are aware, UTC."""

    facts: PostFacts
    workspace_id: str
    account_id: str
    created_at: datetime
    slide_duration: int | None = None
    claim_token: str | None = None
    claim_expires_at: datetime | None = None
    enqueued_revision: int | None = None
    enqueued_at: datetime | None = None
    retry_at: datetime | None = None
    render_tries: int = 0
    posted_at: datetime | None = None
    platform_post_id: str | None = None
    failure_reason: str | None = None
    released_at: datetime | None = None

    def due_at(self, facts: PostFacts | None = None) -> datetime:
        """Since when the post should go out: its time, or the release from a hold that came after its time."""
        at = (facts or self.facts).scheduled_time
        return at if self.released_at is None else max(at, self.released_at)


def public(post: Post, facts: PostFacts | None = None) -> dict[str, Any]:
    """The public fields, JSON-ready; `facts` shows the post as an edit left it instead of as its row stands."""
    now = facts or post.facts
    return {
        "postId": now.id,
        "accountId": post.account_id,
        "platform": now.platform,
        "contentType": now.content_type,
        "contentUrl": now.content_url,
        "thumbnailUrl": now.thumbnail_url,
        **{plain.name: getattr(now, plain.attribute) for plain in PLAIN},
        "soundId": now.sound_id,
        "timezone": now.timezone,
        "scheduledTime": format_instant(now.scheduled_time),
        "status": now.status.value,
        "createdAt": format_instant(post.created_at),
    }


def listed(post: Post) -> dict[str, Any]:
    """What lists show: the public fields, and the revision that an edit's If-Match names."""
    return public(post) | {"revision": post.facts.revision}


def public_json(post: Post, facts: PostFacts | None = None) -> str:
    """The same as text: the body of an answer, built once and stored with the edit that it answers."""
    return to_json(public(post, facts)).decode()


def service_body(kind: str, post: Post, facts: PostFacts | None = None) -> str:
    """What a service is sent to `publish` or `render`: the public fields, and what a render made (docs/services.md)."""
    made = (facts or post.facts).rendered_url
    shown = public(post, facts) | {"renderedUrl": made, "slideDuration": post.slide_duration}
    return to_json({"type": kind, "post": shown}).decode()


def detailed(post: Post, hold: Hold | None = None) -> dict[str, Any]:
    """What GET of one post shows: the public fields, how its publish ended, whether it takes an edit now, and what
    holds it.
    """
    refusal = cannot_edit(post.facts)
    return public(post) | {
        "postedAt": format_instant(post.posted_at) if post.posted_at else None,
        "platformPostId": post.platform_post_id,
        "failureReason": post.failure_reason,
        "editable": refusal is None,
        "notEditableReason": refusal.details[0].message if refusal and refusal.details else None,
        "held": hold and hold.public(),
    }


def difference(before: PostFacts, after: PostFacts) -> tuple[dict[str, Any], dict[str, Any]]:
    """The public fields in which two versions differ, as they were and as they are: an edit's audit record."""
    was: dict[str, Any] = {}
    now: dict[str, Any] = {}
    for field, name in AUDITED.items():
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            was[field] = format_instant(old) if isinstance(old, datetime) else old
            now[field] = format_instant(new) if isinstance(new, datetime) else new
    return was, now
