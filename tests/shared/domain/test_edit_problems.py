"""What only the post can tell of a PATCH: limits of its caption, its platform, and the moment of acceptance."""

from datetime import datetime, timedelta

import pytest

from api.models.edits import parse_patch
from shared.domain import times
from shared.domain.edits import EditPatch, problems_for
from tests.shared.domain.patch_bodies import NOW, TIME, URL, Subject, slides

LONG, VIDEO = "x" * 2_201, {"contentType": "video", "contentUrl": URL}


@pytest.mark.parametrize(
    ("body", "post", "words"),
    [
        ({"caption": LONG}, Subject(), "2,200 UTF-16 code units"),
        ({"caption": LONG}, Subject(content_type="slides"), None),
        ({"caption": LONG}, Subject(content_type="slides", render_as_video=True), "2,200 UTF-16 code units"),
        ({"caption": LONG}, Subject("instagram", "slides"), "2,200 characters"),
        ({"caption": LONG, **slides(2)}, Subject(), None),
        ({"caption": LONG, **VIDEO}, Subject(content_type="slides"), "2,200 UTF-16 code units"),
        ({"caption": "short", **VIDEO}, Subject(content_type="slides", caption=LONG), None),
        (VIDEO, Subject(content_type="slides", caption=LONG), "stands as it is"),
        (VIDEO, Subject(content_type="slides", render_as_video=True, caption=LONG), None),
        (slides(2), Subject(content_type="slides", caption=LONG), None),
        # What stands there since before there was a limit is no fault of an edit that leaves the limit alone.
        (VIDEO, Subject(caption=LONG), None),
        (TIME, Subject(caption=LONG), None),
        (slides(2), Subject("instagram", caption=LONG), None),
    ],
)
def test_a_caption_is_held_against_the_limit_of_what_the_edit_makes(body, post, words):
    error = problems_for(parse_patch(body), post, NOW)
    if words is None:
        assert error is None
    else:
        assert error is not None
        assert (error.code, [detail.field for detail in error.details]) == ("invalid_caption", ["caption"])
        assert words in error.message


@pytest.mark.parametrize(
    ("body", "platform", "code", "field", "words"),
    [
        ({"caption": "x"}, "instagram", None, None, None),
        ({"soundId": "s"}, "tiktok", None, None, None),
        ({"soundId": None}, "tiktok", None, None, None),
        ({"soundId": None}, "instagram", None, None, None),
        ({"soundId": "s"}, "instagram", "sound_not_supported", "soundId", "TikTok posts only"),
        (slides(1), "tiktok", None, None, None),
        (slides(35), "tiktok", None, None, None),
        (slides(1), "instagram", "invalid_content", "contentUrl", "2 to 10 image URLs on Instagram and holds 1"),
        (slides(2), "instagram", None, None, None),
        (slides(10), "instagram", None, None, None),
        (slides(11), "instagram", "invalid_content", "contentUrl", "2 to 10 image URLs on Instagram and holds 11"),
        ({"contentType": "video", "contentUrl": URL}, "instagram", None, None, None),
        (TIME, "tiktok", None, None, None),
        (TIME | {"scheduledTime": "2026-04-22T11:01"}, "tiktok", None, None, None),
        (TIME | {"scheduledTime": "2026-04-22T11:00"}, "tiktok", "invalid_scheduled_time", "scheduledTime", "future"),
        (TIME | {"scheduledTime": "0001-01-01T00:00"}, "tiktok", "invalid_scheduled_time", "scheduledTime", "future"),
        (TIME | {"scheduledTime": "2036-04-22T11:00"}, "tiktok", None, None, None),
        (
            TIME | {"scheduledTime": "2036-04-22T11:01"},
            "tiktok",
            "invalid_scheduled_time",
            "scheduledTime",
            "ten years",
        ),
        (
            TIME | {"scheduledTime": "9999-12-31T23:59"},
            "tiktok",
            "invalid_scheduled_time",
            "scheduledTime",
            "ten years",
        ),
    ],
)
def test_what_only_the_post_can_tell_is_judged_by_platform_and_moment_of_acceptance(body, platform, code, field, words):
    error = problems_for(parse_patch(body), Subject(platform), NOW)
    if code is None:
        assert error is None
    else:
        assert error is not None
        assert (error.code, [detail.field for detail in error.details]) == (code, [field])
        assert words in error.message


def test_of_several_problems_with_the_post_the_first_in_the_table_gives_the_code():
    body = {"soundId": "s", **slides(1), **TIME, "scheduledTime": "2020-01-01T00:00"}
    error = problems_for(parse_patch(body), Subject("instagram"), NOW)
    assert error is not None
    assert error.code == "invalid_scheduled_time"
    assert [detail.field for detail in error.details] == ["scheduledTime", "contentUrl", "soundId"]
    years_before = NOW - timedelta(days=365 * 8)
    assert problems_for(parse_patch(body), Subject("tiktok"), years_before) is None


def test_an_accepted_time_that_newer_zone_data_skips_means_the_first_minute_after_the_gap():
    patch = EditPatch.from_changes({"scheduledTime": "2026-03-08T02:30", "timezone": "America/New_York"})
    assert patch.instant == times.to_instant(datetime(2026, 3, 8, 3, 0), "America/New_York")  # noqa: DTZ001 - local
    assert patch.changes() == {"scheduledTime": "2026-03-08T02:30", "timezone": "America/New_York"}
