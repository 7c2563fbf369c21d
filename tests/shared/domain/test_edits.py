"""Every rule of docs/api.md about a PATCH's body, as a table. What only the post can tell: test_edit_problems.py."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from api.models.edits import parse_patch
from shared.domain import fields, times
from shared.domain.edit_histories import GROUPS
from shared.domain.edits import FIELDS, PLAIN, EditPatch
from shared.domain.fields import Content
from shared.domain.lifecycle import PostFacts
from shared.store import tables
from tests.shared.domain.patch_bodies import LONE, TABLE, TIME, URL, refusal, slides
from tests.shared.domain.test_urls import BAD_URLS, GOOD_URLS

STRINGS = [name for name in TABLE if name not in ("contentType", "contentUrl")]
NULLABLE = {"soundId", *(plain.name for plain in PLAIN if plain.nullable)}
LOCAL = times.parse_local("2026-05-01T09:00")
assert LOCAL is not None
NO_OBJECTS: list[Any] = [None, True, 1, 1.5, "caption", [], [{"caption": "x"}], {}]
NO_URLS: list[Any] = [None, False, 7, [URL], {}]

ACCEPTED = [
    ({"caption": "new words"}, EditPatch(caption="new words")),
    ({"caption": ""}, EditPatch(caption="")),
    ({"caption": "é" * 4_000}, EditPatch(caption="é" * 4_000)),
    ({"caption": "\U0001f600" * 4_000}, EditPatch(caption="\U0001f600" * 4_000)),
    (
        TIME,
        EditPatch(
            local_time=LOCAL,
            timezone="America/New_York",
            instant=datetime(2026, 5, 1, 13, tzinfo=UTC),
        ),
    ),
    ({"contentType": "video", "contentUrl": URL}, EditPatch(content=Content("video", (URL,)))),
    (slides(1), EditPatch(content=Content("slides", ("https://example.com/0.jpg",)))),
    (slides(35), EditPatch(content=Content("slides", tuple(slides(35)["contentUrl"])))),
    ({"soundId": "7016547803243022337"}, EditPatch(sound_id="7016547803243022337")),
    ({"soundId": "s" * 255}, EditPatch(sound_id="s" * 255)),
    ({"soundId": None}, EditPatch(sound_id=None)),
    (
        {"caption": "all", **TIME, "contentType": "video", "contentUrl": URL, "soundId": None},
        EditPatch(
            "all",
            LOCAL,
            "America/New_York",
            datetime(2026, 5, 1, 13, tzinfo=UTC),
            Content("video", (URL,)),
            None,
        ),
    ),
]


@pytest.mark.parametrize(("body", "patch"), ACCEPTED)
def test_a_good_body_is_a_patch_and_comes_back_from_its_changes(body, patch):
    assert parse_patch(body) == patch
    assert parse_patch(body).changes() == body
    assert EditPatch.from_changes(patch.changes()) == patch


REFUSED = [
    # What is no object, or an empty one.
    *((body, "invalid_request", []) for body in NO_OBJECTS),
    # Wrong types, and null where it means nothing.
    *(
        ({**TIME, "contentType": "video", "contentUrl": URL, field: value}, "invalid_request", [field])
        for field in TABLE
        for value in (None, True, 0, 1.5, {"a": 1})
        if not (field in NULLABLE and value is None)
    ),
    *(({**TIME, field: ["x"]}, "invalid_request", [field]) for field in STRINGS),
    *(
        ({"contentType": "slides", "contentUrl": [URL, value]}, "invalid_request", ["contentUrl[1]"])
        for value in NO_URLS
    ),
    # NUL and lone surrogates, wherever a string stands.
    *(
        ({**TIME, "contentType": "video", "contentUrl": URL, field: f"a{bad}"}, "invalid_request", [field])
        for field in TABLE
        for bad in ("\0", LONE, "\udfff")
    ),
    ({"contentType": "slides", "contentUrl": [URL, f"{URL}\0"]}, "invalid_request", ["contentUrl[1]"]),
    ({"caption": "x", "\0": 1}, "invalid_request", ["\\x00"]),
    ({"caption": "x", LONE: 1}, "invalid_request", ["\\ud800"]),
    # Unknown fields.
    ({"caption": "x", "status": "posted"}, "invalid_request", ["status"]),
    ({"": "x"}, "invalid_request", [""]),
    # One of a pair.
    ({"scheduledTime": "2026-05-01T09:00"}, "missing_required_fields", ["timezone"]),
    ({"timezone": "Asia/Tokyo"}, "missing_required_fields", ["scheduledTime"]),
    ({"contentType": "video"}, "missing_required_fields", ["contentUrl"]),
    ({"contentUrl": URL}, "missing_required_fields", ["contentType"]),
    ({"contentUrl": [URL]}, "missing_required_fields", ["contentType"]),
    # Captions.
    ({"caption": "x" * 4_001}, "invalid_caption", ["caption"]),
    ({"caption": "\U0001f600" * 4_001}, "invalid_caption", ["caption"]),
    # Times and zones.
    *(
        ({**TIME, "scheduledTime": text}, "invalid_scheduled_time", ["scheduledTime"])
        for text in ("", "soon", "2026-05-01T09:00:00", "2026-05-01T09:00Z", "2026-02-30T09:00", "2026-05-01T09:00\n")
    ),
    *(
        ({**TIME, "timezone": name}, "invalid_timezone", ["timezone"])
        for name in ("", "UTC", "Europe/Berlin", "asia/tokyo", "America/New_York ", "../../etc/passwd")
    ),
    ({**TIME, "scheduledTime": "2026-03-08T02:30"}, "invalid_scheduled_time", ["scheduledTime"]),
    # Content.
    ({"contentType": "image", "contentUrl": URL}, "invalid_content", ["contentType"]),
    ({"contentType": "", "contentUrl": URL}, "invalid_content", ["contentType"]),
    ({"contentType": "Video", "contentUrl": URL}, "invalid_content", ["contentType"]),
    ({"contentType": "video", "contentUrl": [URL]}, "invalid_content", ["contentUrl"]),
    ({"contentType": "slides", "contentUrl": URL}, "invalid_content", ["contentUrl"]),
    ({"contentType": "video", "contentUrl": "nowhere"}, "invalid_content", ["contentUrl"]),
    (slides(0), "invalid_content", ["contentUrl"]),
    (slides(36), "invalid_content", ["contentUrl"]),
    ({"contentType": "slides", "contentUrl": [URL, "ftp://a.b/c"]}, "invalid_content", ["contentUrl[1]"]),
    # Sounds: the table has no code of their own for a bad length.
    ({"soundId": ""}, "invalid_request", ["soundId"]),
    ({"soundId": "s" * 256}, "invalid_request", ["soundId"]),
    # Several at once: the first code in the table's order, all fields in the details.
    (
        {"captoin": 1, "caption": "x" * 4_001, "timezone": "Mars", "soundId": 5},
        "invalid_request",
        ["captoin", "soundId", "scheduledTime", "caption", "timezone"],
    ),
    (
        {"caption": "x" * 4_001, "contentUrl": "nowhere"},
        "missing_required_fields",
        ["contentType", "caption", "contentUrl"],
    ),
    (
        {"contentUrl": "x", "contentType": "y", "timezone": "z", "scheduledTime": "", "caption": "x" * 9_999},
        "invalid_caption",
        ["caption", "scheduledTime", "timezone", "contentType", "contentUrl"],
    ),
    (
        {"contentUrl": "x", "contentType": "y", "timezone": "z", "scheduledTime": ""},
        "invalid_scheduled_time",
        ["scheduledTime", "timezone", "contentType", "contentUrl"],
    ),
    (
        {"contentUrl": "x", "contentType": "video", "timezone": "z", "scheduledTime": "2026-05-01T09:00"},
        "invalid_timezone",
        ["timezone", "contentUrl"],
    ),
]


@pytest.mark.parametrize(("body", "code", "at_fault"), REFUSED)
def test_a_bad_body_is_refused_with_its_code_and_every_field_at_fault(body, code, at_fault):
    error = refusal(body)
    assert error.code == code
    assert [detail.field for detail in error.details] == at_fault
    if at_fault:
        assert error.message == error.details[0].message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], f"not an array; send any of {', '.join(TABLE)}"),
        ({}, "send at least one of caption"),
        ({"caption": None}, "caption must be a string, not null"),
        ({"caption": False}, "caption must be a string, not a boolean"),
        ({"scheduledTime": "2026-05-01T09:00"}, "timezone is missing; scheduledTime needs it"),
        ({"contentUrl": URL}, "contentType is missing; contentUrl needs it"),
        ({"caption": "x" * 4_345}, "at most 4,000 characters anywhere and has 4,345; shorten it"),
        ({**TIME, "scheduledTime": "9"}, "YYYY-MM-DDTHH:MM, without seconds or offset"),
        ({**TIME, "timezone": "Mars"}, "one of America/New_York, America/Chicago"),
        ({**TIME, "scheduledTime": "2027-03-14T02:59"}, "first valid minute after it is 2027-03-14T03:00"),
        ({"contentType": "gif", "contentUrl": URL}, "video or slides"),
        (slides(40), "1 to 35 URLs and holds 40"),
        ({"contentType": "video", "contentUrl": "h" * 2_049}, "at most 2,048 characters and has 2,049"),
        ({"contentType": "video", "contentUrl": "https://me:pw@example.com/"}, "user name or password"),
        ({"soundId": ""}, "null removes the sound"),
    ],
)
def test_a_message_says_what_to_do_next(body, words):
    assert words in refusal(body).message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("captoin", "caption"),
        ("Caption", "caption"),
        ("schedule_time", "scheduledTime"),
        ("scheduled_time", "scheduledTime"),
        ("scheduledAt", "scheduledTime"),
        ("timeZone", "timezone"),
        ("content_type", "contentType"),
        ("contentUrls", "contentUrl"),
        ("sound", "soundId"),
        ("sound-id", "soundId"),
    ],
)
def test_a_near_miss_is_answered_with_the_name_that_was_meant(wrong, right):
    assert refusal({wrong: "x"}).message == f'"{wrong}" is not a field here; did you mean {right}?'


@pytest.mark.parametrize("wrong", ["status", "postId", "thumbnailUrl2", "x", "x" * 5_000])
def test_a_far_miss_is_answered_with_the_names_there_are(wrong):
    message = refusal({wrong: "x"}).message
    assert "did you mean" not in message
    assert message.endswith(f"send only {', '.join(TABLE)}")
    assert len(message) < 200


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_good_url_is_taken_as_it_is(url):
    assert parse_patch({"contentType": "video", "contentUrl": url}).content == Content("video", (url,))


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_invalid_content(url):
    error = refusal({"contentType": "video", "contentUrl": url})
    assert (error.code, [detail.field for detail in error.details]) == ("invalid_content", ["contentUrl"])


def test_a_patch_keeps_captions_and_urls_out_of_logs():
    patch = parse_patch({"caption": "secret words", "contentType": "video", "contentUrl": f"{URL}?sig=secret"})
    assert "secret" not in repr(patch)


def test_each_field_of_a_patch_belongs_to_a_group_that_a_requeue_can_overwrite() -> None:
    assert GROUPS.keys() == set(FIELDS)


def test_a_plain_field_has_its_place_wherever_a_field_has_one() -> None:
    """A name in PLAIN without its attribute would fail at the first request only."""
    patch_has = {each.name for each in dataclasses.fields(EditPatch)}
    post_has = {each.name for each in dataclasses.fields(PostFacts)}
    for plain in PLAIN:
        assert plain.attribute in patch_has & post_has & set(tables.posts.columns.keys())


@pytest.mark.parametrize("attribute", [plain.attribute for plain in PLAIN])
def test_a_plain_field_is_unchanged_by_default_and_left_out_of_the_repr(attribute: str) -> None:
    (field,) = (each for each in dataclasses.fields(EditPatch) if each.name == attribute)
    assert field.default is fields.UNSET
    assert not field.repr
