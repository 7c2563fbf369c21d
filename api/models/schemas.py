"""The bodies of requests and answers, for the OpenAPI document alone (api/models/openapi.py). No request runs it.

Requests are checked by shared/domain/fields.py, api/models/new_posts.py and others. tests/contract compares these
schemas with those checks.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from api.models import deletions, new_posts
from shared.domain import captions, edits, fields, times, urls
from shared.domain.lifecycle import EditStatus, Status

LOCAL_TIME = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]$"
INSTANT = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
    r"([Zz]|[+-]00:00)$"
)
_TIME_PART = "T([0-9]{1,9}H([0-9]{1,9}M)?|[0-9]{1,9}M)"
DURATION = f"^[+-]?P([0-9]{{1,9}}W|[0-9]{{1,9}}D({_TIME_PART})?|{_TIME_PART})$"
WEB_ADDRESS = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]"

Id = Annotated[str, Field(min_length=1, max_length=255)]
Platform = Literal["tiktok", "instagram"]
ContentType = Literal["video", "slides"]
Caption = Annotated[str, Field(json_schema_extra=dict(captions.SCHEMA))]
Url = Annotated[
    str,
    Field(
        max_length=urls.MAX_URL,
        pattern=WEB_ADDRESS,
        description="http or https, with a host, without credentials; never fetched by the API",
        examples=["https://cdn.example.com/clip.mp4"],
    ),
]
SoundId = Annotated[str, Field(min_length=1, max_length=fields.MAX_SOUND_ID, examples=["7016547803243022337"])]
LocalTime = Annotated[
    str,
    Field(
        pattern=LOCAL_TIME,
        description="a local time, without seconds or offset, in the future and within ten years; a time that a clock "
        "change skips is refused, one that occurs twice means its first occurrence",
        examples=["2030-04-22T15:00"],
    ),
]
Instant = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2030-04-22T19:00:00Z"], description="UTC")
]
Zone = Annotated[str, Field(json_schema_extra={"enum": list(times.ZONES)}, examples=["America/New_York"])]


absent: Any = None
"""The default of a field that may be left out of a request: there is no other value that would mean the same."""


class Body(BaseModel):
    """A request's body: no fields but these."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Shown(BaseModel):
    """An answer's body. New fields may come."""

    model_config = ConfigDict(alias_generator=to_camel)


# -- Errors


class Fault(Shown):
    field: str = Field(description="a field or parameter as it was sent: contentUrl[3]; for cannot_edit: status")
    message: str


class ErrorBody(Shown):
    code: str = Field(description="one of a few words to branch on; the list stands with each status")
    message: str = Field(description="for people: what is wrong and what to do next")
    request_id: str = Field(description="as in X-Request-Id")
    details: list[Fault] = Field(default=absent, description="only where they help: all fields at fault")


class Problem(Shown):
    """Every error has this shape."""

    error: ErrorBody


# -- Posts


def _plain(base: type[BaseModel], *, optional: bool) -> Any:
    """A model with the texts that an edit sets and that nothing else hangs on (shared/domain/edits.py)."""
    given: dict[str, Any] = {}
    for plain in edits.PLAIN:
        kind: Any = Annotated[str, Field(json_schema_extra=dict(plain.schema))] if optional else str
        given[plain.attribute] = (kind | None if plain.nullable else kind, absent if optional else ...)
    return create_model(f"Plain{base.__name__}", __base__=base, **given)


class PostContent(Shown):
    """What stands before those texts, in the order of the answer."""

    post_id: Id = Field(examples=["post_abc123"])
    account_id: Id = Field(examples=["acc_1a2b3c4d5e"])
    platform: Platform
    content_type: ContentType
    content_url: str | list[str] = Field(description="video: one URL; slides: an array of them")
    thumbnail_url: str | None


class Post(_plain(PostContent, optional=False)):  # type: ignore[misc]  # made from the list of fields
    """A post."""

    sound_id: str | None
    timezone: str | None = Field(description="null: it was created without a time")
    scheduled_time: Instant
    status: Status
    created_at: Instant


class PostDetails(Post):
    """A post, and how it ended."""

    posted_at: Instant | None
    platform_post_id: str | None
    failure_reason: str | None


class PostPage(Shown):
    data: list[Post]
    has_more: bool
    next_cursor: str | None = Field(description="send it as cursor for the next page; null on the last")


class PostPatch(_plain(Body, optional=True)):  # type: ignore[misc]  # as above
    """What to change. A field that is absent stays as it is; at least one must be there."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "dependentRequired": {
                "scheduledTime": ["timezone"],
                "timezone": ["scheduledTime"],
                "contentType": ["contentUrl"],
                "contentUrl": ["contentType"],
            },
            "allOf": [
                {
                    "if": {"properties": {"contentType": {"const": kind}}, "required": ["contentType"]},
                    "then": {"properties": {"contentUrl": {"type": shape}}},
                }
                for kind, shape in (("video", "string"), ("slides", "array"))
            ],
        }
    )

    scheduled_time: LocalTime = absent
    timezone: Zone = absent
    content_type: ContentType = absent
    content_url: Url | Annotated[list[Url], Field(min_length=1, max_length=35)] = Field(
        default=absent, description="video: one URL; slides: an array of 1 to 35 on TikTok, 2 to 10 on Instagram"
    )
    sound_id: SoundId | None = Field(default=absent, description="TikTok only; null removes the sound, absent keeps it")


class NewPosts(Body):
    account_ids: list[Id] = Field(
        min_length=1, max_length=new_posts.ACCOUNTS_MAX, json_schema_extra={"uniqueItems": True},
        description="one post is created for each", examples=[["acc_1a2b3c4d5e"]],
    )  # fmt: skip
    caption: Caption = absent
    sound_id: SoundId | None = Field(default=absent, description="TikTok only")
    scheduled_time: LocalTime = Field(default=absent, description="absent, with timezone: now")
    timezone: Zone = absent


_BOTH_OR_NONE: JsonDict = {"dependentRequired": {"scheduledTime": ["timezone"], "timezone": ["scheduledTime"]}}


class NewVideos(NewPosts):
    """One video, for one or several accounts."""

    model_config = ConfigDict(json_schema_extra=_BOTH_OR_NONE)

    content_url: Url


class NewSlideshows(NewPosts):
    """Slides, for one or several accounts."""

    model_config = ConfigDict(json_schema_extra=_BOTH_OR_NONE)

    content_urls: list[Url] = Field(
        min_length=1, max_length=35, description="1 to 35 images on TikTok, 2 to 10 on Instagram"
    )
    render_as_video: bool = Field(default=absent, description="true: the post waits for its render first")
    slide_duration: Literal[4, 6, 8] | None = Field(
        default=absent, description="seconds for each slide of a render; 4 unless named"
    )


class Created(Shown):
    posts: list[Post] = Field(description="in the order of accountIds")


class Deletion(Body):
    post_ids: list[str] = Field(min_length=1, max_length=deletions.POSTS_MAX, examples=[["post_abc123"]])


class NotDeleted(Shown):
    post_id: str
    reason: deletions.Reason


class DeletionReport(Shown):
    deleted: list[str]
    failed: list[NotDeleted]
    deleted_at: Instant | None = Field(description="null: nothing was deleted")


# -- Edits


class EditError(Shown):
    code: str
    message: str
    details: list[Fault] = absent


class Edit(Shown):
    """One accepted PATCH, or one move by a bulk job, and what became of it."""

    edit_id: Id = Field(examples=["edit_01k8xg6v3f9zq4d7c2m5n8p1rt"])
    post_id: Id
    status: EditStatus
    changes: dict[str, JsonValue] = Field(description="as they were asked for")
    created_at: Instant = Field(description="when it was accepted: its time was judged against this moment")
    finalized_at: Instant | None
    attempts: int
    revision: int | None = Field(description="of the post, as the edit left it or, refused, found it: its ETag")
    before: dict[str, JsonValue] | None = Field(description="the fields that it changed, as they were")
    after: dict[str, JsonValue] | None = Field(description="the fields that it changed, as they are")
    error: EditError | None
    requested_by: str = Field(description="the name of the API key")


class EditPage(Shown):
    data: list[Edit]
    has_more: bool
    next_cursor: str | None


# -- Accounts


class Account(Shown):
    account_id: Id
    platform: Platform
    name: str


class AccountPage(Shown):
    data: list[Account]
    has_more: Literal[False]
    next_cursor: None


# -- The process


class Health(Shown):
    status: Literal["ok"]


class Readiness(Shown):
    database: Literal["up", "read_only", "down"]
    redis: Literal["up", "down"]
