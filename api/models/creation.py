"""The bodies of requests to create posts, and of their answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.models.answers import Shown
from api.models.edits import BOTH_OR_NONE, Slides, both_or_none
from api.models.new_posts import SLIDE_DURATIONS, NewPostRequest
from api.models.posts import Post
from shared.domain.bodies import Body, Several, Wrong, absent
from shared.domain.fields import AccountId, Caption, Content, Flag, LocalTime, Ruled, ScheduleZone, SoundId, Url, fault

ACCOUNTS_MAX = 100


def _slide_duration(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or value not in SLIDE_DURATIONS:
        shown = ", ".join(map(str, SLIDE_DURATIONS))
        raise fault("invalid_request", f"must be one of {shown}, in seconds")
    return int(value)


_TOGETHER: JsonDict = {"dependentRequired": BOTH_OR_NONE}


class _NewPosts(Body):
    account_ids: Annotated[
        list[AccountId], Several(1, ACCOUNTS_MAX, f"must be an array of 1 to {ACCOUNTS_MAX} account ids", once=True)
    ] = Field(description="one post is created for each")
    caption: Caption = ""
    sound_id: SoundId = None
    scheduled_time: LocalTime = Field(default=absent, description="absent, with timezone: now")
    schedule: ScheduleZone = Field(default=None, alias="timezone")

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> Sequence[Wrong]:
        return both_or_none(given, "scheduledTime", "timezone")


class NewVideos(_NewPosts):
    """One video, for one or several accounts."""

    model_config = ConfigDict(json_schema_extra=_TOGETHER)
    shape: ClassVar[str] = "be a JSON object with accountIds and contentUrl"

    content_url: Url

    def wanted(self) -> NewPostRequest:
        """The domain's value."""
        content = Content("video", (self.content_url,))
        return NewPostRequest(tuple(self.account_ids), content, self.caption, self.sound_id, self.schedule)


class NewSlideshows(_NewPosts):
    """Slides, for one or several accounts."""

    model_config = ConfigDict(json_schema_extra=_TOGETHER)
    shape: ClassVar[str] = "be a JSON object with accountIds and contentUrls"

    content_urls: Slides = Field(description="1 to 35 images on TikTok, 2 to 10 on Instagram")
    render_as_video: Flag = Field(default=False, description="true: the post waits for its render first")
    slide_duration: Annotated[
        int | None, Ruled(_slide_duration, ["integer", "null"], enum=[*SLIDE_DURATIONS, None])
    ] = Field(default=None, description="seconds for each slide of a render; 4 unless named")

    def wanted(self) -> NewPostRequest:
        """The domain's value."""
        return NewPostRequest(
            tuple(self.account_ids),
            Content("slides", tuple(self.content_urls)),
            self.caption,
            self.sound_id,
            self.schedule,
            self.render_as_video,
            self.slide_duration or (SLIDE_DURATIONS[0] if self.render_as_video else None),
        )


class Created(Shown):
    """The posts that were created."""

    posts: list[Post] = Field(description="in the order of accountIds")
