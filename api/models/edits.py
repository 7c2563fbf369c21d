"""Edits: the body of a PATCH, and an edit as answers show it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import ConfigDict, Discriminator, Field, RootModel, Tag
from pydantic.config import JsonDict

from api.http.pagination import Instant, Paging
from api.http.problems import Code
from api.models.answers import EditId, Fault, InstantShown, Page, Shown
from api.models.posts import Post, PostDetails, with_plain
from shared.domain.bodies import MANY, ONE, Body, Several, Wrong, absent, names
from shared.domain.body_reading import read
from shared.domain.edits import FIELDS, PLAIN, EditPatch
from shared.domain.errors import InvalidRequest
from shared.domain.fields import (
    UNSET,
    Content,
    ContentType,
    Flag,
    Id,
    LocalTime,
    OneUrl,
    ScheduleZone,
    SoundId,
    Unset,
    Url,
    one_of,
)
from shared.domain.lifecycle import EditStatus, Status
from shared.domain.platforms import MOST_SLIDES

BOTH_OR_NONE: JsonDict = {"scheduledTime": ["timezone"], "timezone": ["scheduledTime"]}
"""JSON Schema's dependentRequired."""


Slides = Annotated[
    list[Url],
    Several(
        1,
        MOST_SLIDES,
        f"must hold 1 to {MOST_SLIDES} URLs and holds {{count}}",
        "invalid_content",
        other="must be an array of strings, not {kind}",
    ),
]
_ContentUrl = Annotated[
    Annotated[OneUrl, Tag(ONE)] | Annotated[Slides, Tag(MANY)],
    Discriminator(lambda value: MANY if isinstance(value, list) else ONE),
]


def both_or_none(given: Mapping[str, Any], one: str, other: str) -> Sequence[Wrong]:
    """A fault for the one of a pair that is missing."""
    if (one in given) == (other in given):
        return ()
    name, there = (other, one) if one in given else (one, other)
    return (("missing_required_fields", name, f"{name} is missing; {there} needs it"),)


def content_together(given: Mapping[str, Any]) -> Sequence[Wrong]:
    """`contentType` and `contentUrl`: both or neither, and of one kind."""
    kind, found = given.get("contentType"), given.get("contentUrl")
    if kind == "slides" and isinstance(found, str):
        return (("invalid_content", "contentUrl", "contentUrl must be an array of image URLs for slides"),)
    if kind == "video" and isinstance(found, list):
        return (("invalid_content", "contentUrl", "contentUrl must be one URL, as a string, for a video"),)
    return both_or_none(given, "contentType", "contentUrl")


class PostPatch(with_plain(Body, optional=True)):  # type: ignore[misc]  # made from the list of fields
    """What to change. A field that is absent stays as it is; at least one must be there."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "dependentRequired": {**BOTH_OR_NONE, "contentType": ["contentUrl"], "contentUrl": ["contentType"]},
            "allOf": [
                {
                    "if": {"properties": {"contentType": {"const": kind}}, "required": ["contentType"]},
                    "then": {"properties": {"contentUrl": {"type": shape}}},
                }
                for kind, shape in (("video", "string"), ("slides", "array"))
            ],
        }
    )
    shape: ClassVar[str] = f"be a JSON object, not {{kind}}; send any of {', '.join(FIELDS)}"
    read_only: ClassVar[frozenset[str]] = frozenset(names(PostDetails)) - frozenset(FIELDS)

    scheduled_time: LocalTime = absent
    schedule: ScheduleZone = Field(default=absent, alias="timezone")
    content_type: ContentType = absent
    content_url: _ContentUrl = Field(
        default=absent, description="video: one URL; slides: an array of 1 to 35 on TikTok, 2 to 10 on Instagram"
    )
    sound_id: SoundId = cast("Any", UNSET)

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> Sequence[Wrong]:
        found: Sequence[Wrong] = ()
        if ("scheduledTime" in given) != ("timezone" in given):
            found = both_or_none(given, "scheduledTime", "timezone")
        if "contentType" in given or "contentUrl" in given:
            found = (*found, *content_together(given))
        return found

    def patch(self) -> EditPatch:
        """The domain's value."""
        given = self.__dict__
        plain = {name: given[name] for name in _PLAIN}
        local = zone = instant = UNSET
        content: Content | Unset = UNSET
        if given["schedule"] is not absent:
            local, zone, instant = given["schedule"]
        if given["content_type"] is not absent:
            urls = given["content_url"]
            content = Content(given["content_type"], (urls,) if isinstance(urls, str) else tuple(urls))
        return EditPatch(
            local_time=local, timezone=zone, instant=instant, content=content, sound_id=given["sound_id"], **plain
        )


_PLAIN = tuple(plain.attribute for plain in PLAIN)


def parse_patch(body: object) -> EditPatch:
    """The patch that a parsed JSON body means. Judges everything that can be judged without the post.

    Raises InvalidRequest, and nothing else whatever JSON it is given, with all fields at fault in the details.
    """
    if body == {}:
        raise InvalidRequest(f"The body changes nothing; send at least one of {', '.join(FIELDS)}")
    given: PostPatch = read(PostPatch, body)
    return given.patch()


class Undo(Body):
    """May be left out."""

    optional: ClassVar[bool] = True

    force: Flag = Field(default=False, description="overwrite what later edits made of the same fields")


class EditError(Shown):
    """Why an edit was refused or failed."""

    code: Code
    message: str
    details: list[Fault] = absent


class Changed(with_plain(Shown, optional=True)):  # type: ignore[misc]  # made from the list of fields
    """Some fields of a post."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"caption": "New words"}]})

    content_type: Literal["video", "slides"] = absent
    content_url: str | list[str] = absent
    thumbnail_url: str | None = absent
    sound_id: str | None = absent
    timezone: str | None = absent
    scheduled_time: str = Field(default=absent, description="in changes local, in before and after UTC")
    status: Status = absent


class Moved(Shown):
    """Where a bulk job, or an undo of one, put a post."""

    scheduled_time: InstantShown
    timezone: str | None


class AskedFor(Changed):
    """What an edit asks for: fields of the post, a move by a bulk job, or that the post goes out now."""

    move: Moved = absent
    publish_now: Literal[True] = absent


class DryRun(Shown):
    """What an edit would do, decided on the post as it stands with its queued edits. Nothing was recorded."""

    post: Post = Field(description="as the edit would leave it")
    changes: Changed = Field(description="the fields that the edit would change, with their new values")
    rerender: bool = Field(description="whether the post would be rendered again")
    publish_moved: bool = Field(description="whether the post would go out at another time")


class PostOrDryRun(RootModel[Post | DryRun]):
    """The post as the edit left it; with dryRun=true what the edit would do."""


class Edit(Shown):
    """One accepted PATCH, one move by a bulk job, or one "publish now", and what became of it."""

    edit_id: EditId
    post_id: str = Field(examples=["post_abc123"])
    status: EditStatus
    changes: AskedFor = Field(description="as they were asked for")
    created_at: InstantShown = Field(description="when it was accepted: its time was judged against this moment")
    finalized_at: InstantShown | None
    attempts: int
    revision: int | None = Field(description="of the post, as the edit left it or, refused, found it: its ETag")
    before: Changed | None = Field(description="the fields that it changed, as they were")
    after: Changed | None = Field(description="the fields that it changed, as they are")
    error: EditError | None
    requested_by: str = Field(description="the name of the API key", examples=["scheduler"])


class EditPage(Page[Edit]):
    """A page of edits."""


class EditsQuery(Paging):
    """The filters of edits."""

    status: Annotated[str, one_of(EditStatus)] = Field(default=absent, description="Only edits in this status.")
    post: Id = Field(default=absent, alias="postId", description="Only edits of this post.")
    created_from: Instant = Field(default=absent, description="Only edits accepted at or after this UTC time.")
    created_to: Instant = Field(default=absent, description="Only edits accepted before this UTC time.")
