"""The events that Redraft sends to a receiver of webhooks, for the OpenAPI document (docs/services.md)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from api.http.problems import Code
from api.models.answers import EditId, InstantShown, JobId, Shown
from api.models.reschedules import Unchanged
from shared.domain.bodies import absent


class EventData(Shown):
    """What every event holds."""

    workspace_id: str = Field(examples=["ws_1"])
    post_id: str = Field(examples=["post_abc123"])
    revision: int = Field(description="the post's, as the event left it: its ETag", examples=[4])
    sequence: int = Field(description="rises from event to event of one post; drop what is older", examples=[1207])


class EventError(Shown):
    """Why an edit was refused or failed."""

    code: Code
    message: str = Field(examples=["Only posts with status 'generated' or 'pending_render' can be edited"])


class EditApplied(EventData):
    """An edit was applied."""

    edit_id: EditId


class EditEnded(EventData):
    """An edit was rejected or has failed."""

    edit_id: EditId
    error: EventError


class PostRescheduled(EventData):
    """A post has another time."""

    before: InstantShown
    after: InstantShown
    edit_id: EditId = Field(default=absent, description="where an edit moved it")


class PostPosted(EventData):
    """A post went out."""

    scheduled_time: InstantShown
    posted_at: InstantShown
    platform_post_id: str | None = Field(examples=["7301234567890123456"])


class PostFailed(EventData):
    """A render or a publish gave up."""

    scheduled_time: InstantShown
    reason: str = Field(examples=["publisher_unavailable"])


class PostDeleted(EventData):
    """A client deleted the post."""

    deleted_at: InstantShown


class RescheduleFinished(Shown):
    """A bulk job is done, canceled or failed."""

    workspace_id: str = Field(examples=["ws_1"])
    reschedule_id: JobId
    status: Literal["done", "canceled", "failed"]
    dry_run: bool
    total: int | None = Field(description="null: it was canceled before its posts were chosen")
    applied: int
    unchanged: Unchanged
    skipped: int
    failed: int
    finished_at: InstantShown
    sequence: int = Field(description="a job has this one event only", examples=[1208])


class HoldData(Shown):
    """A hold of a post, or of an account or a workspace: then postId and revision are null."""

    workspace_id: str = Field(examples=["ws_1"])
    account_id: str | None = Field(
        description="the account, or the post's; null where the workspace is held", examples=["acc_1a2b3c4d5e"]
    )
    post_id: str | None = Field(examples=["post_abc123"])
    revision: int | None = Field(examples=[4])
    sequence: int = Field(description="rises from event to event of one post or account", examples=[1207])
    of: Literal["post", "account", "workspace"]


class PostHeld(HoldData):
    """A post, an account or a workspace is held."""

    since: InstantShown
    by: str = Field(examples=["marketing"])
    reason: str | None = Field(description="missed: the post's time went by while it was held", examples=["missed"])


class PostResumed(HoldData):
    """The hold of a post, an account or a workspace ended."""


def _event(kind: str, data: type[Shown]) -> type[BaseModel]:
    given: dict[str, Any] = {
        "id": (str, Field(description="the same in a repeat", examples=["evt_01k8xg6v3f9zq4d7c2m5n8p1rt"])),
        "type": (Literal[kind], ...),
        "created_at": (InstantShown, ...),
        "data": (data, ...),
    }
    name = "".join(part.title() for part in kind.split(".")) + "Event"
    return create_model(name, __base__=Shown, __doc__=data.__doc__, **given)


_DATA: Mapping[str, type[Shown]] = {
    "edit.applied": EditApplied,
    "edit.rejected": EditEnded,
    "edit.failed": EditEnded,
    "post.rescheduled": PostRescheduled,
    "post.posted": PostPosted,
    "post.failed": PostFailed,
    "post.deleted": PostDeleted,
    "reschedule.finished": RescheduleFinished,
    "post.held": PostHeld,
    "post.resumed": PostResumed,
}
EVENTS = {kind: _event(kind, data) for kind, data in _DATA.items()}
"""The model of each type of event."""
