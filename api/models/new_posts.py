"""What a request to create posts may hold, and the posts that it asks for (docs/api.md). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, cast

from shared.domain import captions, fields, times
from shared.domain.errors import Faults, InvalidRequest, NotFound
from shared.domain.fields import UNSET, Content, Schedule, Unset
from shared.domain.ids import new_id
from shared.domain.lifecycle import PostFacts, Status, needs_render
from shared.domain.posts import Post

Kind = Literal["video", "slideshow"]

FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "video": ("accountIds", "contentUrl", "caption", "soundId", "scheduledTime", "timezone"),
    "slideshow": (
        *("accountIds", "contentUrls", "caption", "soundId", "scheduledTime", "timezone"),
        *("renderAsVideo", "slideDuration"),
    ),
}
ACCOUNTS_MAX: Final = 100
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


def parse(body: object, kind: Kind) -> NewPostRequest:
    """The request in a parsed JSON body. Raises only InvalidRequest, which names all fields at fault."""
    known = FIELDS[kind]
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body must be a JSON object with {' and '.join(known[:2])}")
    faults = Faults()
    fields.check_known(body, known, faults)
    for name in known[:2]:
        if name not in body:
            faults.add("missing_required_fields", name, f"{name} is missing; send it")
    account_ids = _accounts(body.get("accountIds", UNSET), faults)
    content: Content | Unset = UNSET
    if kind == "video":
        url = fields.check_url(body.get("contentUrl", UNSET), faults)
        content = UNSET if url is UNSET else Content("video", (url,))
    else:
        urls = fields.check_urls(body.get("contentUrls", UNSET), faults, name="contentUrls")
        content = UNSET if urls is UNSET else Content("slides", urls)
    caption = captions.parse(body.get("caption", ""), faults)
    sound_id = fields.check_sound_id(body.get("soundId"), faults)
    schedule = fields.check_schedule(body.get("scheduledTime", UNSET), body.get("timezone", UNSET), faults)
    render_as_video = _flag(body.get("renderAsVideo", False), faults)
    slide_duration = _duration(body.get("slideDuration"), faults)
    faults.raise_if_any()
    return NewPostRequest(
        account_ids,
        cast("Content", content),
        cast("str", caption),
        cast("str | None", sound_id),
        None if schedule is UNSET else schedule,
        render_as_video,
        slide_duration or (SLIDE_DURATIONS[0] if render_as_video else None),
    )


def _accounts(value: object, faults: Faults) -> tuple[str, ...]:
    if value is UNSET:
        return ()
    if not isinstance(value, list) or not 1 <= len(value) <= ACCOUNTS_MAX:
        faults.add("invalid_request", "accountIds", f"accountIds must be an array of 1 to {ACCOUNTS_MAX} account ids")
        return ()
    found: list[str] = []
    for place, one in enumerate(value):
        name = f"accountIds[{place}]"
        account_id = fields.check_text(one, name, faults)
        if account_id in found:
            faults.add("invalid_request", name, f"{name} names an account for the second time; name each once")
        elif account_id is not UNSET:
            found.append(account_id)
    return tuple(found)


def _flag(value: object, faults: Faults) -> bool:
    if not isinstance(value, bool):
        faults.add("invalid_request", "renderAsVideo", "renderAsVideo must be true or false")
    return value is True


def _duration(value: object, faults: Faults) -> int | None:
    if value is None:
        return None
    if value not in SLIDE_DURATIONS:
        shown = ", ".join(map(str, SLIDE_DURATIONS))
        faults.add("invalid_request", "slideDuration", f"slideDuration must be one of {shown}, in seconds")
        return None
    return int(value)


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
        fields.check_sound_platform(new.sound_id, platform, faults)
        if new.content.kind == "slides":
            fields.check_slide_count(len(new.content.urls), platform, faults, name="contentUrls")
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
        claim_token=None,
        claim_expires_at=None,
        enqueued_revision=1 if rendered or due else None,
        enqueued_at=now if rendered or due else None,
        retry_at=None,
        render_tries=0,
        posted_at=None,
        platform_post_id=None,
        failure_reason=None,
    )


def renders(posts: Sequence[Post]) -> list[tuple[str, int]]:
    """The renders to ring for: (post, content revision)."""
    return [
        (post.facts.id, post.facts.content_revision)
        for post in posts
        if post.facts.status is Status.PENDING_RENDER and post.enqueued_revision is not None
    ]


def publishes(posts: Sequence[Post]) -> list[tuple[str, int, datetime | None]]:
    """The publishes to ring for: (post, schedule revision, when; None for at once)."""
    return [
        (
            post.facts.id,
            post.facts.schedule_revision,
            None if post.facts.scheduled_time <= post.created_at else post.facts.scheduled_time,
        )
        for post in posts
        if post.facts.status is Status.GENERATED and post.enqueued_revision is not None
    ]
