"""Posts as answers show them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from api.http.pagination import Instant, Paging
from api.models.answers import InstantShown, Page, Shown
from api.models.holds import Hold
from shared.domain.bodies import absent
from shared.domain.edits import PLAIN
from shared.domain.fields import CONTENT_TYPES, UNSET, Id, one_of
from shared.domain.lifecycle import Status
from shared.domain.platforms import PLATFORMS
from shared.store.reads import SORTS


def with_plain(base: type[BaseModel], *, optional: bool) -> Any:
    """A model with the texts that an edit sets and that nothing else hangs on (shared/domain/edits.py)."""
    given: dict[str, Any] = {}
    for plain in PLAIN:
        kind: Any = plain.kind if optional else str
        # The type of a request knows of null by itself.
        given[plain.attribute] = (kind if optional or not plain.nullable else kind | None, UNSET if optional else ...)
    return create_model(f"Plain{base.__name__}", __base__=base, **given)


class PostContent(Shown):
    """What stands before those texts, in the order of the answer."""

    post_id: str = Field(examples=["post_abc123"])
    account_id: str = Field(examples=["acc_1a2b3c4d5e"])
    platform: Literal["tiktok", "instagram"]
    content_type: Literal["video", "slides"]
    content_url: str | list[str] = Field(
        description="video: one URL; slides: an array of them", examples=["https://cdn.example.com/clip.mp4"]
    )
    thumbnail_url: str | None = Field(examples=["https://cdn.example.com/clip.jpg"])


class Post(with_plain(PostContent, optional=False)):  # type: ignore[misc]  # made from the list of fields
    """A post."""

    sound_id: str | None = Field(examples=["7016547803243022337"])
    timezone: str | None = Field(description="null: it was created without a time", examples=["America/New_York"])
    scheduled_time: InstantShown
    status: Status
    created_at: InstantShown


class PostDetails(Post):
    """A post, and how it ended."""

    posted_at: InstantShown | None
    platform_post_id: str | None = Field(examples=["7301234567890123456"])
    failure_reason: str | None = Field(examples=["publisher_unavailable"])
    editable: bool = Field(
        description="whether a PATCH would be accepted at this moment, as far as the post's state goes"
    )
    not_editable_reason: str | None = Field(
        description="posted, failed or being published, as the error cannot_edit says it", examples=["posted"]
    )
    held: Hold | None = Field(description="what keeps it from going out, the nearest hold; null: nothing")


class ListedPost(Post):
    """A post as lists show it."""

    revision: int = Field(description='the ETag of the post: If-Match: "<revision>" refuses an edit of any other one')


class PostPage(Page[ListedPost]):
    """A page of posts."""


class PostsQuery(Paging):
    """The filters of posts, and their order."""

    status: Annotated[str, one_of(Status)] = Field(default=absent, description="Only posts in this status.")
    platform: Annotated[str, one_of(PLATFORMS)] = Field(default=absent, description="Only posts on this platform.")
    content_type: Annotated[str, one_of(CONTENT_TYPES)] = Field(default=absent, description="Only posts of this kind.")
    account: Id = Field(default=absent, alias="accountId", description="Only posts of this account.")
    held: Annotated[str, one_of(("true", "false"))] = Field(
        default=absent, description="true: only posts that wait and are held, by themselves or not; false: only others."
    )
    scheduled_from: Instant = Field(default=absent, description="Only posts scheduled at or after this UTC time.")
    scheduled_to: Instant = Field(default=absent, description="Only posts scheduled before this UTC time.")
    sort: Annotated[str, one_of(SORTS)] = Field(
        default=absent,
        description="By the time at which they go out. Absent: newest first, by when they were created.",
    )
