"""Undoing an applied edit: the patch that sets back what it changed, and what stands in the way. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.domain import times
from shared.domain.edit_histories import listed, touched
from shared.domain.edits import PLAIN, EditPatch
from shared.domain.errors import Conflict, Detail
from shared.domain.fields import UNSET
from shared.domain.lifecycle import EditStatus

NAMED_AT_MOST: Final = 20
"""Later edits that a refusal names."""


@dataclass(frozen=True, slots=True)
class Change:
    """An edit as far as an undo reads it. `before` and `after`: the fields that it changed, under their public names;
    None where it is not applied.
    """

    id: str
    status: str
    changes: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    def groups(self) -> frozenset[str]:
        """The groups of fields that it changed; of one that waits, those that it asks for."""
        if self.status == EditStatus.QUEUED:
            return touched(self.changes, None)
        return touched({}, self.after)


def cannot_undo(edit: Change, later: Sequence[Change], *, force: bool) -> Conflict | None:
    """Why the edit cannot be undone, or None. `later`: edits of the post that were accepted after it and changed, or
    ask for, one of its fields; newest first, and NAMED_AT_MOST + 1 at most.
    """
    if edit.status != EditStatus.APPLIED:
        return Conflict(f"Edit {edit.id} is {edit.status}; only an edit that is applied can be undone")
    mine = edit.groups()
    if not mine:
        return Conflict(f"Edit {edit.id} changed nothing; there is nothing to undo")
    if force or not later:
        return None
    named = [
        Detail(other.id, f"{other.status}; it touches the {listed(sorted(mine & other.groups()))} too")
        for other in later[:NAMED_AT_MOST]
    ]
    many = f"More than {NAMED_AT_MOST}" if len(later) > NAMED_AT_MOST else str(len(later))
    count = "A later edit touches" if len(later) == 1 else f"{many} later edits touch"
    return Conflict(f'{count} the same fields; send {{"force": true}} to overwrite that', details=named)


def back(edit: Change, zone_now: str | None) -> EditPatch | Conflict:
    """The patch that sets back what an applied edit changed. Conflict where no PATCH can say what was there before.
    `zone_now`: the post's zone. "Publish now" names none, and leaves the post's as it is.
    """
    before = edit.before or {}
    groups = edit.groups()
    patch = EditPatch(**{plain.attribute: before[plain.name] for plain in PLAIN if plain.name in before})
    if "content" in groups:
        urls = before["contentUrl"]
        kind = "video" if isinstance(urls, str) else "slides"
        patch.content = EditPatch.from_changes({"contentType": kind, "contentUrl": urls}).content
    if "sound" in groups:
        patch.sound_id = before["soundId"]
    if "time" in groups:
        instant, zone = _time_before(edit, zone_now)
        if zone is None:
            return Conflict("The post had no timezone before that edit; send a PATCH with scheduledTime and timezone")
        local = times.to_local(instant, zone).replace(second=0, microsecond=0)
        if times.to_instant(local, zone) != instant:
            return Conflict(
                f"The time before that edit, {times.format_exactly(instant)}, is no whole minute of a local time of "
                f"{zone} that a PATCH can say; send a PATCH with scheduledTime and timezone"
            )
        patch.local_time, patch.timezone, patch.instant = local, zone, instant
    return patch


def _time_before(edit: Change, zone_now: str | None) -> tuple[datetime, str | None]:
    """The instant and the zone before the edit. What it left as it was is what it asked for."""
    before, instant, zone = edit.before or {}, None, None
    if "move" in edit.changes:
        move = edit.changes["move"]
        instant, zone = times.parse_instant(move["scheduledTime"]), move["timezone"]
    else:
        asked = EditPatch.from_changes(edit.changes)
        instant = asked.instant if asked.instant is not UNSET else None
        zone = zone_now if asked.at_once else asked.timezone if asked.timezone is not UNSET else None
    if "scheduledTime" in before:
        instant = times.parse_instant(before["scheduledTime"])
    if instant is None:
        raise ValueError(f"edit {edit.id} changed the time and does not say from what")
    return instant, before.get("timezone", zone)
