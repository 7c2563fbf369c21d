"""Which edits can be undone, what stands in the way, and the patch that sets back what an edit changed."""

from typing import Any

import pytest

from shared.domain.edit_histories import names_of
from shared.domain.errors import Conflict
from shared.domain.undoing import NAMED_AT_MOST, Change, back, cannot_undo

TIME = {"scheduledTime": "2030-07-02T09:00", "timezone": "America/New_York"}
AT_NINE = "2030-07-02T13:00:00Z"
AT_TEN = "2030-07-01T14:00:00Z"
ZONE = "America/New_York"
"""The post's zone now."""


def change(
    changes: dict[str, Any], before: dict[str, Any] | None, after: dict[str, Any] | None = None, status: str = "applied"
) -> Change:
    return Change("edit_1", status, changes, before, dict(before or {}) if after is None else after)


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (change({"caption": "new"}, {"caption": "old"}), {"caption": "old"}),
        (change({"caption": "new", "soundId": "2"}, {"soundId": "1"}), {"soundId": "1"}),
        (change({"soundId": None}, {"soundId": "1"}), {"soundId": "1"}),
        (change({"soundId": "1"}, {"soundId": None}), {"soundId": None}),
        (
            change(
                {"contentType": "video", "contentUrl": "https://a.example/b.mp4"},
                {"contentUrl": "https://a.example/a.mp4", "thumbnailUrl": "https://a.example/a.jpg"},
            ),
            {"contentType": "video", "contentUrl": "https://a.example/a.mp4"},
        ),
        (
            change(
                {"contentType": "video", "contentUrl": "https://a.example/b.mp4"},
                {"contentType": "slides", "contentUrl": ["https://a.example/1.jpg"], "status": "pending_render"},
            ),
            {"contentType": "slides", "contentUrl": ["https://a.example/1.jpg"]},
        ),
        (
            change(TIME, {"scheduledTime": AT_TEN}),
            {"scheduledTime": "2030-07-01T10:00", "timezone": "America/New_York"},
        ),
        (
            change(TIME, {"scheduledTime": AT_TEN, "timezone": "Asia/Tokyo"}),
            {"scheduledTime": "2030-07-01T23:00", "timezone": "Asia/Tokyo"},
        ),
        (change(TIME, {"timezone": "Europe/Paris"}), {"scheduledTime": "2030-07-02T15:00", "timezone": "Europe/Paris"}),
        (
            change({"move": {"scheduledTime": AT_NINE, "timezone": "Europe/London"}}, {"scheduledTime": AT_TEN}),
            {"scheduledTime": "2030-07-01T15:00", "timezone": "Europe/London"},
        ),
        (
            change({"publishNow": True}, {"scheduledTime": AT_TEN}),
            {"scheduledTime": "2030-07-01T10:00", "timezone": ZONE},
        ),
    ],
)
def test_an_undo_sets_back_what_the_edit_changed_and_nothing_else(edit: Change, wanted: dict[str, Any]) -> None:
    patch = back(edit, ZONE)
    assert not isinstance(patch, Conflict)
    assert patch.changes() == wanted


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change(TIME, {"scheduledTime": AT_TEN, "timezone": None}), "no timezone before"),
        # The second 01:30 of that night: as a local time it means the first.
        (change(TIME, {"scheduledTime": "2030-11-03T06:30:00Z"}), "no whole minute"),
        (change(TIME, {"scheduledTime": "2030-07-01T14:00:30Z"}), "no whole minute"),
    ],
)
def test_a_time_that_no_patch_can_say_is_a_conflict_that_says_what_to_do(edit: Change, words: str) -> None:
    found = back(edit, ZONE)
    assert isinstance(found, Conflict)
    assert words in found.message
    assert "send a PATCH" in found.message


@pytest.mark.parametrize("status", ["queued", "rejected", "failed"])
def test_only_an_applied_edit_can_be_undone(status: str) -> None:
    found = cannot_undo(change({"caption": "x"}, None, {}, status), [], force=True)
    assert found is not None
    assert f"is {status}" in found.message


def test_an_edit_that_changed_nothing_cannot_be_undone() -> None:
    found = cannot_undo(change({"caption": "x"}, {}), [], force=True)
    assert found is not None
    assert "changed nothing" in found.message


def test_later_edits_are_named_with_what_they_touch_unless_they_are_to_be_overwritten() -> None:
    edit = change({"caption": "x", **TIME}, {"caption": "old", "scheduledTime": AT_TEN})
    later = [
        Change("edit_4", "queued", {"publishNow": True}, None, None),
        Change("edit_3", "queued", {"caption": "y"}, None, None),
        Change("edit_2", "applied", TIME, {"timezone": "Asia/Tokyo"}, {"timezone": "America/New_York"}),
    ]
    found = cannot_undo(edit, later, force=False)
    assert found is not None
    assert "3 later edits touch the same fields" in found.message
    assert [(one.field, one.message) for one in found.details] == [
        ("edit_4", "queued; it touches the time too"),
        ("edit_3", "queued; it touches the caption too"),
        ("edit_2", "applied; it touches the time too"),
    ]
    assert cannot_undo(edit, later, force=True) is None
    assert cannot_undo(edit, [], force=False) is None
    many = cannot_undo(edit, later[:1] * (NAMED_AT_MOST + 1), force=False)
    assert many is not None
    assert (len(many.details), "More than 20" in many.message) == (NAMED_AT_MOST, True)


def test_fields_that_belong_together_touch_each_other() -> None:
    asked = {"time": TIME, "content": {"contentUrl": "https://a.example/a"}, "caption": {"caption": "x"}}
    found = {group: names_of(change(changes, changes).groups()) for group, changes in asked.items()}
    assert found == {
        "time": ["move", "publishNow", "scheduledTime", "timezone"],
        "content": ["contentType", "contentUrl"],
        "caption": ["caption"],
    }
