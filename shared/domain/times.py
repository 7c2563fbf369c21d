# ruff: noqa: N818  -- an error is named for the situation: SkippedByDst
"""Zones, local times, instants, durations, shifts and spreads: the only place that knows what a clock change does.

Pure: no clock, no host. Zones come from the locked `tzdata` package, never from the machine's database or from
PostgreSQL, so that every process decides alike. An *instant* is an aware datetime in UTC; a *local* time is
naive and means nothing without its zone. These functions run thousands of times a second.
"""

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

ZONES: Final[tuple[str, ...]] = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "Pacific/Honolulu",
    "Europe/London",
    "Europe/Paris",
    "Asia/Tokyo",
    "Asia/Singapore",
    "Australia/Sydney",
)
"""The zones that a post may have, in the order of docs/api.md."""

REACH_YEARS: Final = 10
"""How far ahead a post may be scheduled, in calendar years."""

MAX_SHIFT_DAYS: Final = 3_660
"""No duration is longer than this: a move by more would leave the ten years whatever it starts from."""

DURATION_RULE: Final = (
    "an ISO 8601 duration of weeks (P2W) or of days, hours and minutes (P1D, -PT90M, P1DT2H), "
    f"no seconds, months or years, at most {MAX_SHIFT_DAYS:,} days"
)
"""What `parse_duration` takes, in words for a message."""

LOCAL_RULE: Final = "a local time written YYYY-MM-DDTHH:MM, without seconds or offset"
INSTANT_RULE: Final = "an RFC 3339 time in UTC, like 2026-04-22T15:00:00Z"

_DAY = "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_MINUTE_OF_DAY = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_LOCAL: Final = re.compile(f"{_DAY}T{_MINUTE_OF_DAY}")
_INSTANT: Final = re.compile(
    rf"({_DAY}[Tt]{_MINUTE_OF_DAY}(?::[0-5][0-9])?)(?:(?<=:..:..)\.([0-9]+))?(?:[Zz]|[+-]00:00)"
)
_DURATION: Final = re.compile(
    r"([+-])?P(?:([0-9]{1,9})W|(?=[0-9T])(?:([0-9]{1,9})D)?(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?)?)"
)
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(second=0, microsecond=0, tzinfo=UTC)


def _load(name: str) -> ZoneInfo:
    region, _, city = name.partition("/")
    with resources.files(f"tzdata.zoneinfo.{region}").joinpath(city).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


# All at import: eleven small files. So a broken installation fails at the start and not at an edit.
_ZONES: Final[Mapping[str, ZoneInfo]] = {name: _load(name) for name in ZONES}


class SkippedByDst(ValueError):
    """The clocks go forward over this local time. `first_valid` (naive) is the first whole minute after the gap."""

    def __init__(self, local: datetime, zone_name: str, first_valid: datetime) -> None:
        super().__init__(
            f"{format_local(local)} does not exist in {zone_name}, where the clocks go forward over it; "
            f"the first valid minute after it is {format_local(first_valid)}"
        )
        self.local = local
        self.zone_name = zone_name
        self.first_valid = first_valid

    def __reduce__(self) -> tuple[type["SkippedByDst"], tuple[datetime, str, datetime]]:
        return type(self), (self.local, self.zone_name, self.first_valid)


def zone(name: str) -> ZoneInfo:
    """One of `ZONES` from the tzdata package, always the same object. ValueError for any other name."""
    try:
        return _ZONES[name]
    except KeyError:
        raise ValueError(f"the zone must be one of {', '.join(ZONES)}") from None


def parse_local(text: str) -> datetime | None:
    """`YYYY-MM-DDTHH:MM` exactly, ASCII digits, a date that the calendar has; naive. None for everything else."""
    if _LOCAL.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # February 30th, year 0000
        return None


def format_local(local: datetime) -> str:
    """`2024-04-22T15:00`: what `parse_local` takes. Seconds are cut off."""
    return local.isoformat(timespec="minutes")[:16]


def parse_instant(text: str) -> datetime | None:
    """What scheduledFrom and its like take: RFC 3339 in UTC (`Z` or `+00:00`), the seconds with a fraction, without, or
    left out; aware. None for everything else: other offsets, second 60.

    What is finer than a microsecond is rounded up, so that `>=` and `<` hold for the same instants as before it.
    """
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    fraction = found[2] or ""
    try:
        instant = datetime.fromisoformat(found[1].upper()).replace(tzinfo=UTC)
        micros = int(fraction[:6].ljust(6, "0")) + bool(fraction[6:].strip("0"))
        return instant + timedelta(microseconds=micros)
    except (ValueError, OverflowError):
        return None


def format_instant(instant: datetime) -> str:
    """`2024-04-22T19:00:00Z`. Fractions are cut off, never rounded up to a time that is not yet."""
    return instant.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"


def format_exactly(instant: datetime) -> str:
    """The same with its fraction, if it has one: what `parse_instant` reads back as it was."""
    exact = instant.astimezone(UTC).replace(tzinfo=None)
    return exact.isoformat(timespec="microseconds" if exact.microsecond else "seconds") + "Z"


def to_instant(local: datetime, zone_name: str) -> datetime:
    """The instant of a naive local time, seconds kept; of a time that occurs twice, the first occurrence.

    Raises SkippedByDst for a time that a clock change leaves out. A result outside the years 1 to 9999 becomes the
    nearest one inside (both ends are far from every schedule), so that no input overflows.
    """
    tz = zone(zone_name)
    # PEP 495: at a change fold=0 gives the offset before it and fold=1 the one after it; elsewhere both are the same.
    before = tz.utcoffset(local.replace(fold=0))
    after = tz.utcoffset(local.replace(fold=1))
    if before is None or after is None:  # pragma: no cover - typeshed's None; a ZoneInfo from a file has offsets
        raise ValueError(f"{zone_name} has no offset at {local}")
    if before < after:
        raise SkippedByDst(local, zone_name, _first_valid(local, tz, before, after))
    try:
        return local.replace(fold=0, tzinfo=UTC) - before
    except OverflowError:
        return _LATEST if local.year > REACH_YEARS else _EARLIEST


def to_local(instant: datetime, zone_name: str | None) -> datetime:
    """The naive wall clock at `instant` in the post's own zone, seconds kept; UTC for a post without a zone."""
    return instant.astimezone(UTC if zone_name is None else zone(zone_name)).replace(tzinfo=None, fold=0)


def within_reach(instant: datetime, now: datetime) -> str | None:
    """None if `instant` lies after `now` and at most ten calendar years after it, else what to do about it.

    From 29 February the ten years end on 28 February where there is no 29th.
    """
    if instant <= now:
        return (
            f"scheduledTime must lie in the future: {format_instant(instant)} is not after the moment of acceptance, "
            f"{format_instant(now)}; choose a later time"
        )
    year = now.year + REACH_YEARS
    last = now.replace(year=year, day=min(now.day, monthrange(year, now.month)[1]))
    if instant > last:
        return (
            f"scheduledTime must lie within ten years: {format_instant(instant)} is after {format_instant(last)}; "
            "choose an earlier time"
        )
    return None


@dataclass(frozen=True, slots=True)
class Duration:
    """A signed ISO 8601 duration in two parts that move differently (docs/bulk.md): `days` moves the wall clock,
    `seconds` the instant. Both carry the sign: `-P1DT2H` is days=-1, seconds=-7200. A week is seven days.
    """

    days: int
    seconds: int

    def __neg__(self) -> "Duration":
        return Duration(-self.days, -self.seconds)

    def __str__(self) -> str:
        """The shortest form that `parse_duration` reads back, for logs and the job's row."""
        hours, minutes = divmod(abs(self.seconds) // 60, 60)
        time = f"{hours}H" * (hours > 0) + f"{minutes}M" * (minutes > 0)
        date = f"{abs(self.days)}D" * (self.days != 0)
        return "-" * (self.days < 0 or self.seconds < 0) + "P" + (date + f"T{time}" * bool(time) or "0D")


def parse_duration(text: str) -> Duration | None:
    """ISO 8601: sign, `PnW` or `PnDTnHnM` with any of the three; see DURATION_RULE. None for everything else.

    Lower case, fractions, empty parts (`P`, `PT`, `P1DT`) and weeks beside others are refused; zero is not.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    sign, weeks, days, hours, minutes = found.groups(default="0")
    whole_days = int(weeks) * 7 + int(days)
    seconds = int(hours) * 3_600 + int(minutes) * 60
    if whole_days * 86_400 + seconds > MAX_SHIFT_DAYS * 86_400:
        return None
    return Duration(-whole_days, -seconds) if sign == "-" else Duration(whole_days, seconds)


def shift(instant: datetime, zone_name: str | None, by: Duration) -> datetime:
    """`instant` moved by `by` (docs/bulk.md). First the date part moves the wall clock in the post's own zone (UTC
    for None), so that 09:00 stays 09:00 across a clock change; then the time part moves the instant. Seconds are kept.

    A wall clock that has moved to a time that occurs twice means its first occurrence; one that has moved into a gap
    raises SkippedByDst. Without a date part the wall clock is never consulted. OverflowError outside years 1 to 9999.
    """
    if by.days:
        if zone_name is None:
            instant += timedelta(days=by.days)
        else:
            instant = to_instant(to_local(instant, zone_name) + timedelta(days=by.days), zone_name)
    return instant + timedelta(seconds=by.seconds)


def spread(count: int, first: datetime, last: datetime) -> list[datetime]:
    """`count` instants in order, evenly from `first` to `last`, floored to the minute; one alone stands at `first`.

    Both ends are whole minutes and in order, else ValueError. Integer arithmetic: no drift, however many.
    """
    minutes, rest = divmod(last - first, _MINUTE)
    if first.second or first.microsecond or rest or minutes < 0:
        raise ValueError("a spread goes from a whole minute to a whole minute that is not before it")
    gaps = max(1, count - 1)
    return [first + timedelta(minutes=minutes * place // gaps) for place in range(count)]


def _first_valid(local: datetime, tz: ZoneInfo, before: timedelta, after: timedelta) -> datetime:
    """The first whole minute after the gap in which `local` lies, where the offset goes from `before` to `after`."""
    wall = local.replace(fold=0, microsecond=0, tzinfo=UTC)
    low, high = wall - after, wall - before  # the change lies in (low, high]
    while (seconds := (high - low) // _SECOND) > 1:
        middle = low + seconds // 2 * _SECOND
        if middle.astimezone(tz).utcoffset() == after:
            high = middle
        else:
            low = middle
    end = (high + after).replace(tzinfo=None)
    return end + timedelta(seconds=-end.second % 60)  # before 1900 offsets had seconds
