"""Every rule of docs/api.md about a PATCH's body as a table, then what must hold for any JSON at all."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import thread_time
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models.edits import parse_patch
from shared.domain import edits, errors, fields, platforms, times
from shared.domain.edit_histories import GROUPS
from shared.domain.edits import FIELDS, PLAIN, EditPatch, problems_for
from shared.domain.errors import InvalidRequest
from shared.domain.fields import Content
from shared.domain.lifecycle import PostFacts
from shared.store import tables
from tests import sizes
from tests.shared.domain.test_urls import BAD_URLS, GOOD_URLS

LONE = "\ud800"
NOW = datetime(2026, 4, 22, 15, 0, tzinfo=UTC)
TIME = {"scheduledTime": "2026-05-01T09:00", "timezone": "America/New_York"}
URL = "https://example.com/a.mp4"
TABLE = (*edits.FIELDS,)
STRINGS = [name for name in TABLE if name not in ("contentType", "contentUrl")]
NULLABLE = {"soundId", *(plain.name for plain in PLAIN if plain.nullable)}
LOCAL = times.parse_local("2026-05-01T09:00")
assert LOCAL is not None
NO_OBJECTS: list[Any] = [None, True, 1, 1.5, "caption", [], [{"caption": "x"}], {}]
NO_URLS: list[Any] = [None, False, 7, [URL], {}]


def slides(count):
    return {"contentType": "slides", "contentUrl": [f"https://example.com/{n}.jpg" for n in range(count)]}


def refusal(body):
    with pytest.raises(InvalidRequest) as caught:
        parse_patch(body)
    return caught.value


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


@dataclass(frozen=True)
class Subject:
    platform: str = "tiktok"
    content_type: str = "video"
    render_as_video: bool = False
    caption: str = "stands"


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


clean = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60)
captions = clean | st.sampled_from(sizes.CAPTIONS)
sounds = clean.filter(bool) | st.just(sizes.SOUND)
urls = st.sampled_from([*GOOD_URLS, sizes.url("long")])
pairs = st.one_of(
    st.just({}),
    urls.map(lambda url: {"contentType": "video", "contentUrl": url}),
    st.lists(urls, min_size=1, max_size=35).map(lambda many: {"contentType": "slides", "contentUrl": many}),
    st.just(sizes.slides("largest")),
)
schedules = st.one_of(
    st.just({}),
    st.builds(
        lambda moment, zone: {"scheduledTime": times.format_local(times.to_local(moment, zone)), "timezone": zone},
        st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - as asked
        st.sampled_from(times.ZONES),
    ),
)
texts = st.fixed_dictionaries({}, optional={"caption": captions, "soundId": st.none() | sounds})
bodies = st.builds(lambda *parts: parts[0] | parts[1] | parts[2], texts, pairs, schedules).filter(bool)


@given(bodies)
def test_any_good_body_is_the_same_patch_before_and_after_the_edits_row(body):
    patch = parse_patch(body)
    assert patch.changes() == body
    assert EditPatch.from_changes(patch.changes()) == patch


wild = st.text(st.characters(codec=None) | st.characters(categories=["Cs"]) | st.just("\0"), max_size=14)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | wild,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(wild, inner, max_size=4),
    max_leaves=8,
)
values = anything | captions | urls | st.sampled_from(["video", "slides", "Asia/Tokyo", "2026-03-08T02:30", LONE, "\0"])
likely = st.dictionaries(st.sampled_from(TABLE) | wild, values)


@given(likely | anything)
def test_any_json_is_a_patch_or_an_invalid_request_that_can_be_answered_and_stored(body):
    try:
        patch = parse_patch(body)
    except InvalidRequest as refused:
        error = refused
    else:
        assert EditPatch.from_changes(patch.changes()) == patch
        for platform in platforms.SLIDES:
            problems_for(patch, Subject(platform), NOW)
        return
    assert error.code in get_args(errors.InvalidCode)
    for text in (error.message, *(part for each in error.details for part in (each.field, each.message))):
        assert fields.is_clean(text)
        assert len(text) < 1_000


@pytest.mark.parametrize(
    "body",
    [
        {f"captio{n}": 0 for n in range(10_000)},
        {"contentType": "slides", "contentUrl": [0] * 60_000},
        {"contentType": "slides", "contentUrl": ["http://["] * 12_000},
        {"x" * 130_000: 0},
        {"caption": "x" * 130_000},
        {"contentType": "video", "contentUrl": "http://" + "a." * 60_000},
        {"contentType": "video", "contentUrl": "http://" + "[" * 2_000},
    ],
    ids=["many unknown fields", "many numbers", "many bad URLs", "long key", "long caption", "long URL", "brackets"],
)
def test_a_body_made_to_be_slow_is_refused_at_once(body):
    # CPU of this thread: what other processes take meanwhile is not its own.
    start = thread_time()
    error = refusal(body)
    assert thread_time() - start < 0.25
    assert len(error.details) <= 20


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
