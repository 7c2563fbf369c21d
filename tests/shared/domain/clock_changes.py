# ruff: noqa: DTZ001  -- a local time is naive here: that is what these tests are about
"""The clock changes of every zone, read from the bytes of the tzdata files (RFC 9636), not through zoneinfo."""

import calendar
import re
import struct
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import NamedTuple

from hypothesis import strategies as st

from shared.domain import times

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
