"""The body of a request to delete posts, and of its answer."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from api.models.answers import InstantShown, Shown
from shared.domain.bodies import Body, Several
from shared.domain.fields import Ruled, text

POSTS_MAX = 1_000


class Reason(StrEnum):
    """Why a post was not deleted. Bulk jobs have the same words for the same reasons (shared/domain/reschedules.py).

    `held`: its row is locked elsewhere now, mostly by an edit under way. The client may send the request again.
    """

    NOT_FOUND = "not_found"
    POSTED = "already_posted"
    FAILED = "already_failed"
    BEING_PUBLISHED = "being_published"
    BEING_RENDERED = "being_rendered"
    LOCKED_ELSEWHERE = "held"


class Deletion(Body):
    """Which posts to delete."""

    shape: ClassVar[str] = "be a JSON object with postIds"

    # Any text: an id that no post can have is reported as not found.
    post_ids: Annotated[
        list[Annotated[str, Ruled(text, examples=["post_abc123"])]],
        Several(1, POSTS_MAX, f"must be an array of 1 to {POSTS_MAX:,} post ids"),
    ]


class NotDeleted(Shown):
    """A post that stays."""

    post_id: str = Field(examples=["post_abc123"])
    reason: Reason


class DeletionReport(Shown):
    """What became of each post."""

    deleted: list[str] = Field(examples=[["post_abc123"]])
    failed: list[NotDeleted]
    deleted_at: InstantShown | None = Field(description="null: nothing was deleted")
