"""What a request to create posts may hold, and the posts that it asks for (docs/api.md). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, cast

from shared.domain import captions, times
from shared.domain.errors import Faults, NotFound
from shared.domain.fields import Content, Schedule
from shared.domain.ids import new_id
from shared.domain.lifecycle import PostFacts, Status, needs_render
from shared.domain.platforms import check_slide_count, check_sound_platform
from shared.domain.posts import Post

SLIDE_DURATIONS: Final = (4, 6, 8)
"""Seconds. The first is the default for slides that are rendered as video."""


@dataclass(frozen=True, slots=True)
class NewPostRequest:
    """One checked request to create posts. `schedule` None: now, without a zone."""

    account_ids: tuple[str, ...]
    content: Content
    caption: str = field(repr=False)
    sound_id: str | None
    schedule: Schedule | None
    render_as_video: bool = False
    slide_duration: int | None = None


def posts_of(
    new: NewPostRequest, workspace_id: str, platforms: Mapping[str, str], now: datetime | None, horizon: float
) -> list[Post]:
    """The posts, one for each account, in the order in which the accounts were named.

    `platforms`: the platform of each account of the workspace. `now`: the database's clock. `horizon`: seconds; posts
    that are due within it are marked as enqueued. Raises NotFound for an unknown account, InvalidRequest for content
    that a platform does not take, and for a time that is past or too far away.
    """
    for account_id in new.account_ids:
        if account_id not in platforms or now is None:
            raise NotFound.account(account_id)
    faults = Faults()
    for platform in dict.fromkeys(platforms[account_id] for account_id in new.account_ids):
        limits = captions.limits_of(platform, new.content.kind, render_as_video=new.render_as_video)
        captions.check(new.caption, limits, faults)
        check_sound_platform(new.sound_id, platform, faults)
        if new.content.kind == "slides":
            check_slide_count(len(new.content.urls), platform, faults, name="contentUrls")
    at = cast("datetime", now)
    if new.schedule is not None:
        problem = times.within_reach(new.schedule.instant, at)
        if problem is not None:
            faults.add("invalid_scheduled_time", "scheduledTime", problem)
    faults.raise_if_any()
    due_until = at + timedelta(seconds=horizon)
    return [
        _post(new, (workspace_id, account_id, platforms[account_id]), at, due_until) for account_id in new.account_ids
    ]


def _post(new: NewPostRequest, owner: tuple[str, str, str], now: datetime, due_until: datetime) -> Post:
    workspace_id, account_id, platform = owner
    kind, urls = new.content.kind, new.content.urls
    instant = now if new.schedule is None else new.schedule.instant
    rendered = needs_render(kind, render_as_video=new.render_as_video)
    due = instant <= due_until
    facts = PostFacts(
        id=new_id("post"),
        platform=platform,
        status=Status.PENDING_RENDER if rendered else Status.GENERATED,
        claim=None,
        content_type=kind,
        content_url=urls[0] if kind == "video" else list(urls),
        thumbnail_url=None,
        caption=new.caption,
        sound_id=new.sound_id,
        timezone=None if new.schedule is None else new.schedule.timezone,
        scheduled_time=instant,
        render_as_video=new.render_as_video,
        rendered_url=None,
        revision=1,
        schedule_revision=1,
        content_revision=1,
    )
    return Post(
        facts,
        workspace_id,
        account_id,
        created_at=now,
        slide_duration=new.slide_duration,
        enqueued_revision=1 if rendered or due else None,
        enqueued_at=now if rendered or due else None,
    )


def _marked(posts: Sequence[Post], status: Status) -> list[Post]:
    return [post for post in posts if post.facts.status is status and post.enqueued_revision is not None]


def renders(posts: Sequence[Post]) -> list[tuple[str, int]]:
    """The renders to ring for: (post, content revision)."""
    return [(post.facts.id, post.facts.content_revision) for post in _marked(posts, Status.PENDING_RENDER)]


def publishes(posts: Sequence[Post]) -> list[tuple[str, int, datetime | None]]:
    """The publishes to ring for: (post, schedule revision, when; None for at once)."""
    found = [(post.facts, post.facts.scheduled_time > post.created_at) for post in _marked(posts, Status.GENERATED)]
    return [(facts.id, facts.schedule_revision, facts.scheduled_time if later else None) for facts, later in found]
