# ruff: noqa: DTZ001  -- a local time is naive here: that is what these tests are about
"""Durations, shifts and spreads, each held against a reckoning of its own (clock_changes.py)."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain import times
from shared.domain.times import Duration, SkippedByDst
from tests.shared.domain.clock_changes import (
    DAY,
    FOLDS,
    MINUTE,
    RECENT,
    anywhere,
    aware,
    instants,
    label,
    occurrences,
    offset_at,
)


@pytest.mark.parametrize(
    ("text", "days", "seconds"),
    [
        ("P1D", 1, 0),
        ("-P1D", -1, 0),
        ("+P1D", 1, 0),
        ("P2W", 14, 0),
        ("-P1W", -7, 0),
        ("PT1H", 0, 3_600),
        ("-PT90M", 0, -5_400),
        ("P1DT2H30M", 1, 9_000),
        ("-P1DT2H", -1, -7_200),
        ("P1DT5M", 1, 300),
        ("P0D", 0, 0),
        ("-PT0M", 0, 0),
        ("P007D", 7, 0),
        ("P3660D", 3_660, 0),
        ("-PT87840H", 0, -3_660 * 86_400),
    ],
)
def test_a_duration_has_a_part_for_the_wall_clock_and_a_part_for_the_instant(text, days, seconds):
    assert times.parse_duration(text) == Duration(days, seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "-P",
        "PT",
        "P1DT",
        "1D",
        "P1",
        "PT1",
        "PD",
        "PTM",
        "P1W2D",
        "P1WT1H",
        "P2D1W",
        "P1Y",
        "P1M",
        "PT1S",
        "P1DT1H1S",
        "PT30M1H",
        "PT1.5H",
        "PT1,5H",
        "P-1D",
        "--P1D",
        "p1d",
        "P1D ",
        " P1D",
        "P1D\n",
        "P1H",
        "T1H",
        "P\u0661D",
        "P3661D",
        "-P3661D",
        "P523W",
        "P3660DT1M",
        "PT5270401M",
        "P9999999999D",
        "P999999999W",
        "P1D\0",
    ],
)
def test_what_is_no_duration_is_refused(text):
    assert times.parse_duration(text) is None


@given(st.text(alphabet="+-PTWDHMYS0123456789.", max_size=12) | st.text(max_size=8))
def test_any_text_is_a_duration_within_bounds_or_none(text):
    duration = times.parse_duration(text)
    if duration is not None:
        assert abs(duration.days * 86_400 + duration.seconds) <= times.MAX_SHIFT_DAYS * 86_400
        assert duration.days * duration.seconds >= 0


durations = st.builds(
    lambda sign, days, minutes: Duration(sign * days, sign * minutes * 60),
    st.sampled_from((1, -1)),
    st.integers(0, 800),
    st.integers(0, 3_000),
)


@given(durations)
@example(Duration(0, 0))
def test_a_duration_is_read_back_from_its_text_and_negates(duration):
    assert times.parse_duration(str(duration)) == duration
    negative = -duration
    assert times.parse_duration(str(negative)) == negative
    assert -negative == duration


@given(anywhere, durations)
def test_a_shift_moves_the_wall_clock_by_days_and_the_instant_by_the_rest(case, by):
    name, instant = case
    if by.days == 0:
        assert times.shift(aware(instant), name, by) == aware(instant + timedelta(seconds=by.seconds))
        return
    wall = instant + offset_at(name, instant) + by.days * DAY
    found = occurrences(name, wall)
    if found:
        assert times.shift(aware(instant), name, by) == aware(min(found) + timedelta(seconds=by.seconds))
    else:
        with pytest.raises(SkippedByDst) as caught:
            times.shift(aware(instant), name, by)
        assert wall < caught.value.first_valid <= wall + timedelta(hours=1)
        assert occurrences(name, caught.value.first_valid)
        assert not occurrences(name, caught.value.first_valid - MINUTE)


@pytest.mark.parametrize("case", RECENT, ids=label)
def test_nine_o_clock_stays_nine_o_clock_across_every_change(case):
    name, change = case
    day = (change.at + change.before).replace(hour=9, minute=0)
    eve, morrow = times.to_instant(day - 2 * DAY, name), times.to_instant(day + 2 * DAY, name)
    assert times.shift(eve, name, Duration(4, 0)) == morrow
    assert times.shift(morrow, name, Duration(-4, 0)) == eve
    assert morrow - eve == 4 * DAY - (change.after - change.before)
    assert times.shift(eve, name, Duration(0, 4 * 86_400)) == eve + 4 * DAY


@given(instants, durations)
def test_a_post_without_a_zone_moves_in_utc(instant, by):
    assert times.shift(aware(instant), None, by) == aware(instant + timedelta(days=by.days, seconds=by.seconds))


@pytest.mark.parametrize("case", FOLDS, ids=label)
def test_a_pure_time_shift_tells_the_two_hours_of_a_fold_apart(case):
    name, change = case
    second = aware(change.at + timedelta(minutes=30, seconds=7))
    assert times.shift(second, name, Duration(0, 0)) == second
    assert times.shift(second, name, Duration(0, -3_600)) == second - timedelta(hours=1)
    # A day forth and back goes through the wall clock twice, and ends in the first of the two hours.
    forth = times.shift(second, name, Duration(1, 0))
    assert times.shift(forth, name, Duration(-1, 0)) == second - timedelta(hours=1)


def test_the_time_part_does_not_lift_a_shift_out_of_a_gap():
    eve = times.to_instant(datetime(2026, 3, 7, 2, 30), "America/New_York")
    with pytest.raises(SkippedByDst):
        times.shift(eve, "America/New_York", Duration(1, 7_200))


@given(st.integers(0, 300), instants, st.integers(0, 20_000))
def test_a_spread_is_even_to_the_minute_and_keeps_both_ends(count, start, length):
    first = aware(start.replace(second=0))
    last = first + length * MINUTE
    places = times.spread(count, first, last)
    assert len(places) == count
    assert places == sorted(places)
    if count:
        assert places[0] == first
    if count > 1:
        assert places[-1] == last
        exact = (last - first) / (count - 1)
        for number, place in enumerate(places):
            assert place.second == place.microsecond == 0
            assert timedelta(milliseconds=-1) <= first + number * exact - place < MINUTE
        gaps = {later - earlier for earlier, later in pairwise(places)}
        assert max(gaps) - min(gaps) <= MINUTE


def test_a_spread_floors_to_the_minute():
    first = datetime(2026, 1, 1, 9, tzinfo=UTC)
    assert times.spread(4, first, first + 10 * MINUTE) == [first + n * MINUTE for n in (0, 3, 6, 10)]
    assert times.spread(1, first, first + 10 * MINUTE) == [first]
    assert times.spread(3, first, first) == [first] * 3


@pytest.mark.parametrize(
    ("start", "end"), [(60, 0), (30, 90), (0, 90), (0, 60.5)], ids=["backwards", "odd start", "odd end", "fraction"]
)
def test_a_spread_between_other_than_whole_minutes_in_order_is_refused(start, end):
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="whole minute"):
        times.spread(2, midnight + timedelta(seconds=start), midnight + timedelta(seconds=end))
