"""What an edit may change, and every rule about it that needs no database (docs/api.md).

Pure. The body of a PATCH is read by api/models/edits.py. `problems_for` judges what needs the post's platform and the
moment of acceptance. Each field's own rule is in shared/domain/fields.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from shared.domain import captions, fields, platforms, times
from shared.domain.errors import Faults, InvalidRequest
from shared.domain.fields import UNSET, Content, Unset


class PlainField(NamedTuple):
    """A text that an edit sets, and on which nothing else depends: no other field, no timer, no render.

    `attribute` is its name in EditPatch and in PostFacts, and its column's. `kind` is its annotated type
    (shared/domain/fields.py): its rule and its OpenAPI schema. `nullable`: whether null is allowed.
    """

    name: str
    attribute: str
    kind: Any
    nullable: bool = False


PLAIN: Final = (PlainField("caption", "caption", fields.Caption),)
"""To add one: an entry here, its attribute in EditPatch and in PostFacts, its column (docs/contributing.md)."""

FIELDS: Final = (
    *(plain.name for plain in PLAIN), "scheduledTime", "timezone", "contentType", "contentUrl", "soundId"
)  # fmt: skip
"""The fields of a PATCH, in the order in which they are checked."""


PUBLISH_NOW: Final = "publishNow"
"""What the edit's row has where a client said "publish now": no field of a PATCH."""


# Not frozen: a frozen one takes 0.8 us longer to make, a quarter of what reading a caption takes. No code changes one.
@dataclass(slots=True)
class EditPatch:
    """What one edit changes; UNSET means unchanged. `local_time`, `timezone` and `instant` are set together or not at
    all; `timezone` None is that of a post without one. `sound_id` None removes the sound. `at_once`: the post's time
    becomes the moment at which the edit was accepted, in the zone that it has. The repr leaves out captions and URLs
    (docs/logs.md).
    """

    caption: str | Unset = field(default=UNSET, repr=False)
    local_time: datetime | Unset = UNSET
    timezone: str | Unset | None = UNSET
    instant: datetime | Unset = UNSET
    content: Content | Unset = UNSET
    sound_id: str | Unset | None = UNSET
    at_once: bool = False

    def changes(self) -> dict[str, object]:
        """The JSON that a client would send for this patch: what the edit's row stores. `contentUrl` is a string for
        a video and an array for slides. The instant is not stored: it follows from the local time and the zone.
        """
        changes: dict[str, object] = {
            plain.name: value for plain in PLAIN if (value := getattr(self, plain.attribute)) is not UNSET
        }
        if self.local_time is not UNSET:
            changes["scheduledTime"] = times.format_local(self.local_time)
            changes["timezone"] = self.timezone
        if self.content is not UNSET:
            changes["contentType"] = self.content.kind
            changes["contentUrl"] = self.content.urls[0] if self.content.kind == "video" else list(self.content.urls)
        if self.sound_id is not UNSET:
            changes["soundId"] = self.sound_id
        if self.at_once:
            changes[PUBLISH_NOW] = True
        return changes

    @staticmethod
    def unknown_in(changes: Mapping[str, object]) -> list[str]:
        """The fields of a stored edit that this version does not know: a newer version accepted them."""
        return [name for name in changes if name not in FIELDS and name != PUBLISH_NOW]

    @classmethod
    def from_changes(cls, changes: Mapping[str, object]) -> "EditPatch":
        """The patch whose `changes()` these are. Nothing is validated: the API validated it when it was accepted.

        Newer zone data may skip a local time that was accepted. Then the first minute after the gap is meant: a
        change of zone data does not refuse an accepted edit.
        """
        content: Content | Unset = UNSET
        if "contentType" in changes:
            kind = cast('Literal["video", "slides"]', changes["contentType"])
            given = changes["contentUrl"]
            content = Content(kind, (given,) if isinstance(given, str) else tuple(cast("list[str]", given)))
        plain: dict[str, Any] = {each.attribute: changes.get(each.name, UNSET) for each in PLAIN}
        sound_id = cast("str | Unset | None", changes.get("soundId", UNSET))
        if "scheduledTime" not in changes:
            return cls(content=content, sound_id=sound_id, at_once=PUBLISH_NOW in changes, **plain)
        timezone = cast("str", changes["timezone"])
        local = datetime.fromisoformat(cast("str", changes["scheduledTime"]))
        try:
            instant = times.to_instant(local, timezone)
        except times.SkippedByDst as skipped:
            instant = times.to_instant(skipped.first_valid, timezone)
        return cls(local_time=local, timezone=timezone, instant=instant, content=content, sound_id=sound_id, **plain)


class Subject(Protocol):
    """What the rules below read of a post (`lifecycle.PostFacts`)."""

    @property
    def platform(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def render_as_video(self) -> bool: ...
    @property
    def caption(self) -> str: ...


def problems_for(patch: EditPatch, post: Subject, accepted_at: datetime) -> InvalidRequest | None:
    """The rules that need the post: caption, slides and sound against the platform, the time against acceptance.

    `soundId: null` is allowed on every platform.
    """
    faults = Faults()
    _check_caption(patch, post, faults)
    if patch.instant is not UNSET:
        message = times.within_reach(patch.instant, accepted_at)
        if message is not None:
            faults.add("invalid_scheduled_time", "scheduledTime", message)
    if patch.content is not UNSET and patch.content.kind == "slides":
        platforms.check_slide_count(len(patch.content.urls), post.platform, faults)
    if patch.sound_id is not UNSET:
        platforms.check_sound_platform(patch.sound_id, post.platform, faults)
    return faults.error()


def _check_caption(patch: EditPatch, post: Subject, faults: Faults) -> None:
    """The caption as the edit leaves it. A caption that the edit does not send is checked only if new content brings
    other limits. So an edit of the time is never refused for an old caption that is too long.
    """
    before = limits = captions.limits_of(post.platform, post.content_type, render_as_video=post.render_as_video)
    if patch.content is not UNSET:
        limits = captions.limits_of(post.platform, patch.content.kind, render_as_video=post.render_as_video)
    if patch.caption is not UNSET:
        captions.check(patch.caption, limits, faults)
    elif limits is not before:
        captions.check(post.caption, limits, faults, unchanged=True)
