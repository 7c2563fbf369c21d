"""The operators' plots: sixty minutes as bars, from rows to the numbers of an SVG. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain.edit_histories import duration
from shared.store.overview import TRIES_LOOKED_AT, Lateness, Minute

WIDTH, TOP, BOTTOM = 320.0, 16.0, 92.0
ROW_MINUTES = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. `typical`: it shows the median, and stands in front of the bar of the worst."""

    x: float
    y: float
    height: float
    label: str
    typical: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """What parts.html draws. `rows`: the same numbers in words, five minutes each."""

    title: str
    summary: str
    unit: str
    top: str
    bars: list[Bar]
    rows: list[tuple[str, str]]


def of(minutes: Sequence[Minute] | None, late: Lateness | None, now: datetime) -> list[Plot]:
    """The plots of the given numbers. None: those numbers could not be read."""
    made = []
    if minutes is not None:
        made += [_waits(minutes), _recorded(minutes)]
    if late is not None:
        made.append(_lateness(late, now))
    return made


def _waits(minutes: Sequence[Minute]) -> Plot:
    longest = [minute.longest_wait for minute in minutes]
    known = [wait for wait in longest if wait is not None]
    if known:
        summary = f"At most {_seconds(max(known))} in the last hour. Grey: the median of each minute."
    else:
        summary = "No edits in the last hour."
    starts = [minute.at for minute in minutes]
    most = ceiling(max(known, default=0.0))
    bars = _bars(longest, most, starts, _seconds)
    medians = _bars([minute.median_wait for minute in minutes], most, starts, lambda wait: f"median {_seconds(wait)}")
    bars += [Bar(bar.x, bar.y, bar.height, bar.label, typical=True) for bar in medians]
    rows = _rows(longest, starts, max, _seconds, "no edits")
    return Plot("Edits: from accepted to finished", summary, "longest wait", _seconds(most), bars, rows)


def _recorded(minutes: Sequence[Minute]) -> Plot:
    counts: list[float | None] = [float(minute.recorded) for minute in minutes]
    total = sum(minute.recorded for minute in minutes)
    starts = [minute.at for minute in minutes]
    most = ceiling(max((count for count in counts if count), default=0.0))
    summary = f"{total:,} edits and bulk moves in the last hour." if total else "None in the last hour."
    rows = _rows(counts, starts, sum, _whole, "0")
    bars = _bars([count or None for count in counts], most, starts, _whole)
    return Plot("Changes recorded, each minute", summary, "changes", _whole(most), bars, rows)


def _lateness(lateness: Lateness, now: datetime) -> Plot:
    late = lateness.worst
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=len(late) - 1)
    starts = [first + timedelta(minutes=number) for number in range(len(late))]
    known = [one for one in late if one is not None]
    among = f"Of the newest {TRIES_LOOKED_AT:,} tries" if lateness.truncated else "In the last hour"
    summary = f"{among} the latest post was {_seconds(max(known))} late." if known else f"{among} no post went out."
    most = ceiling(max(known, default=0.0))
    rows = _rows(late, starts, max, _seconds, "none went out")
    return Plot("Posts: how late at most", summary, "latest", _seconds(most), _bars(late, most, starts, _seconds), rows)


def _bars(
    values: Sequence[float | None], most: float, starts: Sequence[datetime], words: Callable[[float], str]
) -> list[Bar]:
    """A bar for each value that is not None. Even the smallest bar is high enough to be seen."""
    step = WIDTH / max(1, len(values))
    bars = []
    for number, value in enumerate(values):
        if value is not None:
            height = round(max(1.5, (BOTTOM - TOP) * min(1.0, value / most)), 1)
            label = f"{starts[number]:%H:%M}: {words(value)}"
            bars.append(Bar(round(number * step + 0.6, 1), round(BOTTOM - height, 1), height, label))
    return bars


def _rows(
    values: Sequence[float | None],
    starts: Sequence[datetime],
    gather: Callable[[list[float]], float],
    words: Callable[[float], str],
    none: str,
) -> list[tuple[str, str]]:
    rows = []
    for first in range(0, len(values), ROW_MINUTES):
        some = [value for value in values[first : first + ROW_MINUTES] if value is not None]
        rows.append((f"{starts[first]:%H:%M}", words(gather(some)) if some else none))
    return rows


def ceiling(most: float) -> float:
    """The round number at or above the greatest value, at which the plot ends: 1, 2 or 5 and noughts."""
    if most <= 0:
        return 1.0
    size = 1.0
    while size < most:
        size *= 10
    while size >= most * 10:
        size /= 10
    return next(size / part for part in (10, 5, 2, 1) if size / part >= most)


def _seconds(value: float) -> str:
    return duration(timedelta(seconds=value))


def _whole(value: float) -> str:
    return f"{value:,.0f}"
