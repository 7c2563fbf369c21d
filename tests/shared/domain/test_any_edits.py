"""PATCH bodies that hypothesis makes, and some that are made to be slow: a patch, or a refusal that can be answered."""

from datetime import UTC, datetime
from time import thread_time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models.edits import parse_patch
from shared.domain import errors, fields, platforms, times
from shared.domain.edits import EditPatch, problems_for
from shared.domain.errors import InvalidRequest
from tests import sizes
from tests.shared.domain.patch_bodies import LONE, NOW, TABLE, Subject, refusal
from tests.shared.domain.test_urls import GOOD_URLS

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
