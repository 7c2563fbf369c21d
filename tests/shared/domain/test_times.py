# ruff: noqa: DTZ001, DTZ901  -- a local time is naive here: that is what these tests are about
"""Zones, gaps, folds and times as text, each held against a reckoning of its own (clock_changes.py)."""

import pickle
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import times
from shared.domain.times import SkippedByDst
from tests.shared.domain.clock_changes import (
    CHANGES,
    DAY,
    FOLDS,
    MINUTE,
    RECENT,
    YEARS,
    anywhere,
    aware,
    label,
    occurrences,
    offset_at,
)

GAPS = [(name, change) for name, change in RECENT if change.after > change.before]


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
