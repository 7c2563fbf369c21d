# ruff: noqa: DTZ001, DTZ901  -- a local time is naive here: that is what these tests are about
"""Zones, gaps, folds, durations, shifts and spreads, each held against a reckoning of its own.

The clock changes are read here from the bytes of the tzdata files (RFC 9636), not through zoneinfo.
"""

import calendar
import pickle
import re
import struct
import zoneinfo
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain import times
from shared.domain.times import Duration, SkippedByDst

YEARS = range(2026, 2031)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


class Change(NamedTuple):
    """A clock change: its instant (naive UTC), and the offsets before and after it."""

    at: datetime
    before: timedelta
    after: timedelta


def explicit_changes(data):
    """The changes that a TZif file lists, from its 64-bit block, and its footer."""

    def header(start):
        assert data[start : start + 4] == b"TZif"
        return struct.unpack(">6l", data[start + 20 : start + 44])

    isut, isstd, leap, timecnt, typecnt, charcnt = header(0)
    second = 44 + timecnt * 5 + typecnt * 6 + charcnt + leap * 8 + isstd + isut
    isut, isstd, leap, timecnt, typecnt, charcnt = header(second)
    at = second + 44
    stamps = struct.unpack(f">{timecnt}q", data[at : at + 8 * timecnt])
    at += 8 * timecnt
    kinds = data[at : at + timecnt]
    at += timecnt
    offsets = [timedelta(seconds=struct.unpack(">l", data[at + 6 * n : at + 6 * n + 4])[0]) for n in range(typecnt)]
    at += 6 * typecnt + charcnt + 12 * leap + isstd + isut
    changes, before = [], offsets[0]
    for stamp, kind in zip(stamps, kinds, strict=True):
        changes.append(Change(datetime(1970, 1, 1) + timedelta(seconds=stamp), before, offsets[kind]))
        before = offsets[kind]
    return changes, before, data[at:].decode().strip("\n")


def rule_day(year, rule):
    """`Mm.w.d/time` of POSIX TZ: day d (0 = Sunday) of week w (5 = last) of month m, at a local time (02:00)."""
    found = re.fullmatch(r"M(\d+)\.(\d)\.(\d)(?:/(\d+))?", rule)
    assert found is not None, rule
    month, week, day, hour = found.groups(default="2")
    weeks = calendar.Calendar(firstweekday=6).monthdatescalendar(year, int(month))
    days = [week_[int(day)] for week_ in weeks if week_[int(day)].month == int(month)]
    chosen: date = days[min(int(week), len(days)) - 1]
    return datetime(chosen.year, chosen.month, chosen.day, int(hour))


def changes_of(name):
    """Every change of a zone up to 2045: those listed, then those that the footer's rule makes."""
    path = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    changes, last, footer = explicit_changes(path.read_bytes())
    found = re.fullmatch(r"(?:[A-Z]+|<[+-]\d+>)(-?\d+)(?:[A-Z]+,(M[^,]+),(M[^,]+))?", footer)
    assert found is not None, footer
    standard = timedelta(hours=-int(found[1]))
    if found[2] is None:
        assert last == standard
        return changes
    summer = standard + timedelta(hours=1)
    ruled = []
    for year in range(1990, 2046):
        ruled.append(Change(rule_day(year, found[2]) - standard, standard, summer))
        ruled.append(Change(rule_day(year, found[3]) - summer, summer, standard))
    return changes + sorted(change for change in ruled if change.at > changes[-1].at)


CHANGES = {name: changes_of(name) for name in times.ZONES}
RECENT = [(name, change) for name in times.ZONES for change in CHANGES[name] if change.at.year in YEARS]
GAPS = [(name, change) for name, change in RECENT if change.after > change.before]
FOLDS = [(name, change) for name, change in RECENT if change.after < change.before]


def offset_at(name, instant):
    """The offset at a naive UTC instant, from the list of changes alone."""
    changes = CHANGES[name]
    place = bisect_right(changes, instant, key=lambda change: change.at)
    return changes[place - 1].after if place else changes[0].before


def occurrences(name, local):
    """Every naive UTC instant at which the wall clock shows `local`, by trying each offset of those years."""
    offsets = {offset_at(name, local + days * DAY) for days in (-200, -2, 0, 2, 200)}
    return sorted(local - offset for offset in offsets if offset_at(name, local - offset) == offset)


def aware(instant):
    return instant.replace(tzinfo=UTC)


def label(case):
    return f"{case[0]} {case[1].at:%Y-%m-%d}" if isinstance(case, tuple) else None


zones = st.sampled_from(times.ZONES)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda moment: moment.replace(microsecond=0))
near_changes = st.builds(
    lambda case, minutes: (case[0], case[1].at + minutes * MINUTE),
    st.sampled_from(RECENT),
    st.integers(-3 * 1440, 3 * 1440),
)
anywhere = st.tuples(zones, instants) | near_changes


def test_the_zones_are_the_eleven_of_the_spec_and_eight_of_them_change_their_clocks():
    assert len(set(times.ZONES)) == 11
    assert len(GAPS) == len(FOLDS) == 8 * len(YEARS)


@pytest.mark.parametrize("case", GAPS, ids=label)
def test_every_minute_of_every_gap_is_refused_with_the_first_valid_minute(case):
    name, change = case
    start, end = change.at + change.before, change.at + change.after
    assert end - start == timedelta(hours=1)
    for minute in range(60):
        with pytest.raises(SkippedByDst) as caught:
            times.to_instant(start + minute * MINUTE, name)
        assert caught.value.first_valid == end
        assert times.format_local(end) in str(caught.value)
    assert times.to_instant(start - MINUTE, name) == aware(change.at - MINUTE)
    assert times.to_instant(end, name) == aware(change.at)


@pytest.mark.parametrize("case", FOLDS, ids=label)
def test_every_minute_of_every_fold_means_its_first_occurrence(case):
    name, change = case
    start, end = change.at + change.after, change.at + change.before
    assert end - start == timedelta(hours=1)
    for minute in range(60):
        local = start + minute * MINUTE
        first, second = occurrences(name, local)
        for fold in (0, 1):
            assert times.to_instant(local.replace(fold=fold), name) == aware(first)
        assert times.to_local(aware(first), name) == times.to_local(aware(second), name) == local
    assert times.to_instant(start - MINUTE, name) == aware(change.at - timedelta(hours=1) - MINUTE)
    assert times.to_instant(end, name) == aware(change.at + timedelta(hours=1))


@given(anywhere)
def test_local_time_and_instant_agree_with_the_transition_data(case):
    name, instant = case
    local = times.to_local(aware(instant), name)
    assert local == instant + offset_at(name, instant)
    assert local.tzinfo is None
    assert local.fold == 0
    assert times.to_instant(local, name) == aware(min(occurrences(name, local)))


def test_a_gap_before_1900_ends_on_a_whole_minute_too():
    # Local mean time had offsets like -4:56:02, so that the clocks jumped to an odd second.
    for name in times.ZONES:
        for change in CHANGES[name]:
            if change.after > change.before:
                with pytest.raises(SkippedByDst) as caught:
                    times.to_instant(change.at + change.before, name)
                end = change.at + change.after
                assert caught.value.first_valid == end + timedelta(seconds=-end.second % 60)


def test_a_gap_error_survives_pickling():
    with pytest.raises(SkippedByDst) as caught:
        times.to_instant(datetime(2026, 3, 8, 2, 30), "America/New_York")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (str(again), again.first_valid) == (str(caught.value), datetime(2026, 3, 8, 3, 0))
    assert str(again) == (
        "2026-03-08T02:30 does not exist in America/New_York, where the clocks go forward over it; "
        "the first valid minute after it is 2026-03-08T03:00"
    )


def test_the_documented_time_is_the_documented_instant():
    local = times.parse_local("2024-04-22T15:00")
    assert local is not None
    assert times.format_instant(times.to_instant(local, "America/New_York")) == "2024-04-22T19:00:00Z"


@pytest.mark.parametrize("name", times.ZONES)
def test_the_ends_of_the_calendar_do_not_overflow(name):
    for local in (datetime.min, datetime(1, 1, 1, 13), datetime(9999, 12, 31, 23, 59), datetime(9999, 12, 31, 1)):
        instant = times.to_instant(local, name)
        assert instant.tzinfo is UTC
        assert abs(instant.replace(tzinfo=None) - local) < DAY
        assert times.parse_instant(times.format_instant(instant)) == instant


def test_zones_come_from_the_package_and_not_from_the_host(tmp_path):
    tokyo = resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    (tmp_path / "America").mkdir()
    (tmp_path / "America" / "New_York").write_bytes(tokyo)
    before = zoneinfo.TZPATH
    try:
        zoneinfo.reset_tzpath([str(tmp_path)])
        assert zoneinfo.ZoneInfo.no_cache("America/New_York").utcoffset(datetime(2026, 1, 1)) == timedelta(hours=9)
        assert times._load("America/New_York").utcoffset(datetime(2026, 1, 1)) == timedelta(hours=-5)
    finally:
        zoneinfo.reset_tzpath(before)


def test_a_zone_is_loaded_once_and_an_unknown_one_is_refused():
    assert times.zone("Asia/Tokyo") is times.zone("Asia/Tokyo")
    for name in ("", "UTC", "asia/tokyo", "Europe/Berlin", "../etc/passwd", "\0"):
        with pytest.raises(ValueError, match="must be one of America/New_York"):
            times.zone(name)


@given(st.datetimes(datetime.min, datetime.max))
def test_local_times_and_instants_come_back_as_they_were_written(moment):
    minute = moment.replace(second=0, microsecond=0)
    second = moment.replace(microsecond=0, tzinfo=UTC)
    assert times.parse_local(times.format_local(moment)) == minute
    assert times.parse_instant(times.format_instant(aware(moment))) == second
    assert times.parse_instant(times.format_local(moment) + "Z") == aware(minute)


NEVER = [
    "",
    "2026-04-22",
    "2026-04-22T15",
    "2026-04-22 15:00",
    "2026-04-22t15:00",
    "2026-4-22T15:00",
    "2026-04-22T15:0",
    "20260422T1500",
    "2026-W17-3T15:00",
    "2026-02-29T15:00",
    "2026-04-31T15:00",
    "2026-13-01T15:00",
    "2026-00-01T15:00",
    "2026-01-00T15:00",
    "0000-01-01T15:00",
    "2026-04-22T24:00",
    "2026-04-22T15:60",
    "+2026-04-22T15:00",
    "12026-04-22T15:00",
    " 2026-04-22T15:00",
    "2026-04-22T15:00\n",
    "\uff12\uff10\uff12\uff16-04-22T15:00",
    "\u0662\u0660\u0662\u0666-04-22T15:00",
    "2026-04-22T15:00\0",
    "2026-04-22T15:00+00:00",
    "2026-04-22T15:00:00.000",
]


@pytest.mark.parametrize("text", [*NEVER, "2026-04-22T15:00:00", "2026-04-22T15:00Z"])
def test_what_is_no_local_minute_is_refused(text):
    assert times.parse_local(text) is None


@pytest.mark.parametrize(
    ("text", "seconds", "micros"),
    [
        ("2026-04-22T15:00Z", 0, 0),
        ("2026-04-22T15:00:07Z", 7, 0),
        ("2026-04-22t15:00:07z", 7, 0),
        ("2026-04-22T15:00:07+00:00", 7, 0),
        ("2026-04-22T15:00:07-00:00", 7, 0),
        ("2026-04-22T15:00+00:00", 0, 0),
        ("2026-04-22T15:00:07.5Z", 7, 500_000),
        ("2026-04-22T15:00:07.000Z", 7, 0),
        ("2026-04-22T15:00:07.123456Z", 7, 123_456),
        ("2026-04-22T15:00:07.123456000Z", 7, 123_456),
        ("2026-04-22T15:00:07.1234560001+00:00", 7, 123_457),
        ("2026-04-22T15:00:07.999999999Z", 8, 0),
        ("2026-04-22T15:00:07." + "0" * 9_000 + "1Z", 7, 1),
    ],
)
def test_an_rfc_3339_instant_in_utc_is_read_to_the_microsecond(text, seconds, micros):
    instant = datetime(2026, 4, 22, 15, 0, seconds, micros, tzinfo=UTC)
    assert times.parse_instant(text) == instant
    assert times.parse_instant(times.format_exactly(instant)) == instant
    if not micros:
        assert times.format_exactly(instant) == times.format_instant(instant)


@pytest.mark.parametrize(
    "text",
    [
        *(f"{text}Z" for text in NEVER if text not in {"2026-04-22T15:00:00.000", "2026-04-22t15:00"}),
        *("2026-04-22T15:00", "2026-04-22T15:00:60Z", "2026-04-22T15:00:00.Z", "2026-04-22T15:00.5Z"),
        *("2026-04-22T15:00:00+02:00", "2026-04-22T15:00:00 00:00", "2026-04-22T15:00:00+0000", "2026-04-22 15:00Z"),
        *("2026-04-22T15:00:00+00:00Z", "9999-12-31T23:59:59.9999999Z", "2026-04-22T15:00:00.\u0661Z"),
    ],
)
def test_what_is_no_utc_instant_is_refused(text):
    assert times.parse_instant(text) is None


def test_a_leap_day_is_a_day():
    assert times.parse_local("2028-02-29T09:00") == datetime(2028, 2, 29, 9)


@pytest.mark.parametrize(
    ("instant", "now", "expected"),
    [
        ("2026-04-22T15:00:01Z", "2026-04-22T15:00:00Z", None),
        ("2026-04-22T15:00:00Z", "2026-04-22T15:00:00Z", "future"),
        ("2026-04-22T14:59:00Z", "2026-04-22T15:00:00Z", "future"),
        ("2036-04-22T15:00:00Z", "2026-04-22T15:00:00Z", None),
        ("2036-04-22T15:01:00Z", "2026-04-22T15:00:00Z", "within ten years"),
        ("2036-12-31T15:00:00Z", "2026-12-31T15:00:00Z", None),
        ("2038-02-28T15:00:00Z", "2028-02-29T15:00:00Z", None),
        ("2038-03-01T15:00:00Z", "2028-02-29T15:00:00Z", "within ten years"),
        ("9999-12-31T23:59:00Z", "2026-04-22T15:00:00Z", "within ten years"),
        ("0001-01-01T00:00:00Z", "2026-04-22T15:00:00Z", "future"),
    ],
)
def test_a_time_must_lie_in_the_future_and_within_ten_calendar_years(instant, now, expected):
    at, moment = times.parse_instant(instant), times.parse_instant(now)
    assert at is not None
    assert moment is not None
    message = times.within_reach(at, moment)
    if expected is None:
        assert message is None
    else:
        assert message is not None
        assert expected in message
        assert instant in message


def test_a_fraction_of_a_second_in_the_future_is_the_future():
    now = datetime(2026, 4, 22, 15, 0, 0, 1, tzinfo=UTC)
    assert times.within_reach(now, now) is not None
    assert times.within_reach(now + timedelta(microseconds=1), now) is None


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
