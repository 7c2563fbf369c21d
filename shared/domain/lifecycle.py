"""The states of a post, and the one function that decides an edit (docs/lifecycle.md).

Pure. The API's pre-check and the worker under the lock call the same `decide`. The database's CHECKs refuse a row
that both would have let through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from shared.domain import edits, errors
from shared.domain.edits import EditPatch
from shared.domain.fields import UNSET


class Status(StrEnum):
    """The four public statuses of a post. `STATES` says who moves a post in and out."""

    PENDING_RENDER = "pending_render"
    GENERATED = "generated"
    POSTED = "posted"
    FAILED = "failed"


class ClaimKind(StrEnum):
    """The kinds of claim on a post. A claim is private: it is never a public status."""

    RENDER = "render"
    PUBLISH = "publish"


class EditStatus(StrEnum):
    """The statuses of an edit: queued first, then one of the other three, which are final."""

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    FAILED = "failed"


class State(NamedTuple):
    """One row of the table of states. `claim` is the kind of claim that may hold a post in it."""

    editable: bool
    claim: ClaimKind | None
    moves_to: frozenset[Status]
    description: str


STATES: dict[Status, State] = {
    Status.PENDING_RENDER: State(
        editable=True,
        claim=ClaimKind.RENDER,
        moves_to=frozenset({Status.GENERATED, Status.FAILED}),
        description="Put in by creation, and by an edit of what a render reads. A finished render moves it to "
        "generated. So does an edit that leaves nothing to render. A failed render moves it to failed.",
    ),
    Status.GENERATED: State(
        editable=True,
        claim=ClaimKind.PUBLISH,
        moves_to=frozenset({Status.PENDING_RENDER, Status.POSTED, Status.FAILED}),
        description="Put in by creation without a render, by a finished render and by an operator's retry. A finished "
        "publish moves it to posted or failed. An edit that needs a render moves it to pending_render.",
    ),
    Status.POSTED: State(
        editable=False,
        claim=None,
        moves_to=frozenset(),
        description="Put in by a publish that succeeded. Nothing moves it out.",
    ),
    Status.FAILED: State(
        editable=False,
        claim=None,
        moves_to=frozenset({Status.GENERATED, Status.PENDING_RENDER}),
        description="Put in by a render or a publish that gave up. Only a retry moves it out: "
        "`redraft posts retry`, or POST /v1/posts/{postId}/retry.",
    ),
}

BEING_PUBLISHED = "being published"


@dataclass(frozen=True, slots=True)
class PostFacts:
    """What a decision reads of a post's row. Times are aware, UTC; `content_url` is a URL or, for slides, a list."""

    id: str
    platform: str
    status: Status
    claim: ClaimKind | None
    content_type: str
    content_url: str | list[str]
    thumbnail_url: str | None
    caption: str
    sound_id: str | None
    timezone: str | None
    scheduled_time: datetime
    render_as_video: bool
    rendered_url: str | None
    revision: int
    schedule_revision: int
    content_revision: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Apply:
    """The edit takes effect: the post as it leaves it (the same object where it changes nothing)."""

    after: PostFacts


@dataclass(frozen=True, slots=True)
class Reject:
    """The edit is refused, as an outcome: the API's code and message, and the fields at fault."""

    code: str
    message: str
    details: tuple[errors.Detail, ...] = ()


Decision = Apply | Reject


def needs_render(content_type: str, *, render_as_video: bool) -> bool:
    """Slides that are to be rendered as video need a render. Nothing else does."""
    return render_as_video and content_type == "slides"


def etag(revision: int) -> str:
    """The strong entity tag of a revision (RFC 9110, section 8.8.3)."""
    return f'"{revision}"'


NOT = "!"
"""The prefix of a tag of If-None-Match in an edit's preconditions. Tags of If-Match have no prefix."""


def matches(preconditions: Sequence[str] | None, revision: int) -> bool:
    """Whether a post at that revision fulfils an edit's preconditions (RFC 9110, 13.1.1 and 13.1.2). `*` is any tag."""
    return unmet(preconditions, revision) is None


def unmet(preconditions: Sequence[str] | None, revision: int) -> errors.PreconditionFailed | None:
    """The error of preconditions that a post at that revision does not fulfil, or None."""
    if preconditions is None:
        return None
    tag = etag(revision)
    wanted = [given for given in preconditions if not given.startswith(NOT)]
    # An empty list: all of its tags were weak (earlier versions recorded such edits).
    if not preconditions or (wanted and "*" not in wanted and tag not in wanted):
        return errors.PreconditionFailed(revision)
    if NOT + tag in preconditions:
        message = f"If-None-Match names {tag}, and that is the post's ETag; the edit was to be made at another only"
        return errors.PreconditionFailed(revision, message)
    return None


def check_met(preconditions: Sequence[str] | None, hopeless: errors.PreconditionFailed | None, revision: int) -> None:
    """Raises PreconditionFailed where a post at that revision does not fulfil them. `hopeless`: the error of those that
    no post fulfils. All other checks come first.
    """
    if (failed := hopeless or unmet(preconditions, revision)) is not None:
        failed.revision = revision
        raise failed


def cannot_edit(post: PostFacts) -> Reject | None:
    """Why the post takes no edit now, or None. Deleted posts are not found, as if they had never been."""
    if post.deleted:
        return _refused(errors.NotFound.post(post.id))
    if not STATES[post.status].editable:
        return _refused(errors.CannotEdit(post.status.value))
    if post.claim is ClaimKind.PUBLISH:
        return _refused(errors.CannotEdit(BEING_PUBLISHED))
    return None


def _refused(error: errors.RedraftError) -> Reject:
    """The outcome that says what the error would."""
    return Reject(error.code, error.message, error.details)


def decide(post: PostFacts, patch: EditPatch, accepted_at: datetime, if_match: Sequence[str] | None = None) -> Decision:
    """Apply or refuse one edit of one post (docs/lifecycle.md), as `refuse` says."""
    # After the rules of times: that of a post which is to go out at once lies in the past by now.
    wanted = replace(patch, instant=accepted_at, timezone=post.timezone) if patch.at_once else patch
    return refuse(post, patch, accepted_at, if_match) or Apply(edited(post, wanted))


def refuse(
    post: PostFacts, patch: EditPatch, accepted_at: datetime, if_match: Sequence[str] | None = None
) -> Reject | None:
    """Why one edit of one post is refused, or None. Half of what `decide` costs: the API asks for no more.

    The time is judged against `accepted_at`, the database's clock when the edit was recorded. So an edit that waited
    in the queue past its own time is still applied. Field rules come first, then the status, then the preconditions
    (`if_match`, as in `matches`): RFC 9110, 13.2.1 has them evaluated only where the answer would be a success.
    """
    if post.deleted:
        return _refused(errors.NotFound.post(post.id))
    problem = edits.problems_for(patch, post, accepted_at)
    if problem is not None:
        return _refused(problem)
    refusal = cannot_edit(post)
    if refusal is not None:
        return refusal
    failed = unmet(if_match, post.revision)
    if failed is not None:
        return _refused(failed)
    return None


def edited(post: PostFacts, patch: EditPatch) -> PostFacts:
    """The post as the patch leaves it, counters and status included; the same object where nothing changes."""
    plain: dict[str, Any] = {}
    for each in edits.PLAIN:
        value = getattr(patch, each.attribute)
        if value is not UNSET and value != getattr(post, each.attribute):
            plain[each.attribute] = value
    sound_id = post.sound_id if patch.sound_id is UNSET else patch.sound_id
    timezone, instant = post.timezone, post.scheduled_time
    if patch.instant is not UNSET and patch.timezone is not UNSET:
        timezone, instant = patch.timezone, patch.instant
    content_type, content_url = post.content_type, post.content_url
    if patch.content is not UNSET:
        content_type = patch.content.kind
        content_url = patch.content.urls[0] if content_type == "video" else list(patch.content.urls)

    moved = instant != post.scheduled_time
    new_url = content_url != post.content_url
    rerender = new_url or content_type != post.content_type or sound_id != post.sound_id
    if not (moved or rerender or plain or timezone != post.timezone):
        return post
    after = replace(
        post,
        **plain,
        timezone=timezone,
        scheduled_time=instant,
        revision=post.revision + 1,
        schedule_revision=post.schedule_revision + moved,
    )
    if not rerender:
        return after
    # A render that is done or under way belongs to the old content. Its column is emptied and its claim is dropped;
    # the content revision fences off its result.
    needed = needs_render(content_type, render_as_video=post.render_as_video)
    return replace(
        after,
        content_type=content_type,
        content_url=content_url,
        sound_id=sound_id,
        thumbnail_url=None if new_url else post.thumbnail_url,
        rendered_url=None,
        content_revision=post.content_revision + 1,
        status=Status.PENDING_RENDER if needed else Status.GENERATED,
        claim=None,
    )


def moved(post: PostFacts, instant: datetime, timezone: str | None) -> PostFacts:
    """The post at another time, as a bulk job moves it; the same object where neither instant nor zone changes."""
    if instant == post.scheduled_time and timezone == post.timezone:
        return post
    return replace(
        post,
        scheduled_time=instant,
        timezone=timezone,
        revision=post.revision + 1,
        schedule_revision=post.schedule_revision + (instant != post.scheduled_time),
    )


AUDITED = {plain.name: plain.attribute for plain in edits.PLAIN} | {
    "contentType": "content_type",
    "contentUrl": "content_url",
    "thumbnailUrl": "thumbnail_url",
    "soundId": "sound_id",
    "timezone": "timezone",
    "scheduledTime": "scheduled_time",
    "status": "status",
}
"""The fields of GET that an edit may change: their public name and their name here."""
