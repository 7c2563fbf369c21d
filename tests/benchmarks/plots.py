"""Pictures of the figures: line charts as SVG, with the standard library alone, readable in light and in dark.

Lines carry their names at their ends, so that nobody has to match colours with a legend.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final

Point = tuple[float, float]

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 64, 168, 56, 52
LABEL_GAP: Final = 15
OURS: Final = "Redraft"
# For each name its place in the palette; the grey ones are limits, not contenders.
PALETTE: Final = ("ours", "blue", "green", "violet", "ochre", "teal", "rose", "grey", "slate")
NAMED: Final = {
    OURS: "ours",
    "Redraft, 2 API processes": "ours",
    "direct": "blue",
    "direct, 2 processes": "blue",
    "plain Celery": "green",
    "Dramatiq": "violet",
    "taskiq": "ochre",
    "Procrastinate": "teal",
    "PgQueuer": "rose",
    "does nothing": "grey",
    "pgbench (no HTTP)": "slate",
}
LIGHT: Final = {
    "paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "rule": "#e3e7eb",
    "ours": "#c2410c", "blue": "#1d6fb8", "green": "#2f7d32", "violet": "#7c4dbd", "ochre": "#8f6a00",
    "teal": "#0b7d7d", "rose": "#b0357b", "grey": "#6e7781", "slate": "#424a53",
}  # fmt: skip
DARK: Final = {
    "paper": "#0d1117", "ink": "#e6edf3", "quiet": "#9198a1", "rule": "#2a313a",
    "ours": "#ff8a4c", "blue": "#6cb6ff", "green": "#6fcf73", "violet": "#bd9bff", "ochre": "#d9b13b",
    "teal": "#4fd1c5", "rose": "#f58ac0", "grey": "#9198a1", "slate": "#c0c8d1",
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """`place` maps a value to 0 (left, bottom) to 1 (right, top); `ticks` are values and what stands beside them."""

    title: str
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def linear(title: str, most: float, *, least: float = 0.0, form: Callable[[float], str] = "{:,.0f}".format) -> Axis:
    """From `least` to a round number above `most`."""
    step = _round_step((most - least) / 5 or 1)
    top = least + step * max(1, math.ceil((most - least) / step))
    count = round((top - least) / step)
    ticks = [(least + step * number, form(least + step * number)) for number in range(count + 1)]
    return Axis(title, lambda value: (value - least) / (top - least), ticks)


def logarithmic(title: str, least: float, most: float) -> Axis:
    """Whole decades around the values, with 1, 2 and 5 of each as ticks."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    high += high == low
    ticks = [
        (digit * 10.0**decade, f"{digit * 10.0**decade:,g}")
        for decade in range(low, high + 1)
        for digit in (1, 2, 5)
        if digit == 1 or decade < high
    ]
    return Axis(title, lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low), ticks)


def steps(title: str, labels: Sequence[str]) -> Axis:
    """Named places at even distances; values are 0, 1, 2."""
    last = max(1, len(labels) - 1)
    return Axis(title, lambda value: value / last, list(enumerate(labels)))


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)


def throughput(lines: Mapping[str, Sequence[Point]], title: str) -> str:
    """Rates by number of clients, each number of clients a step."""
    clients = sorted({x for points in lines.values() for x, _ in points})
    placed = {name: [(clients.index(x), y) for x, y in points] for name, points in lines.items()}
    most = max(y for points in lines.values() for _, y in points)
    return chart(
        title,
        steps("clients", [f"{count:g}" for count in clients]),
        linear("edits a second", most),
        placed,
    )


def latencies(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Percentile curves, the rare cases stretched: each step to the right is a tenth of those that are left."""
    shown = (50, 75, 90, 95, 99, 99.9, 99.99)

    def rareness(percent: float) -> float:
        return -math.log10(1 - min(percent, 99.99) / 100)

    low, high = rareness(50), rareness(99.99)
    axis = Axis(
        "per cent of the requests that took no longer",
        lambda percent: (rareness(percent) - low) / (high - low),
        [(percent, f"{percent:g}") for percent in shown],
    )
    inside = {name: [(x, y) for x, y in points if 50 <= x <= 99.99] for name, points in curves.items()}
    values = [y for points in inside.values() for _, y in points if y > 0]
    return chart(title, axis, logarithmic("milliseconds", min(values), max(values)), inside)


def by_size(lines: Mapping[str, Sequence[float]], labels: Sequence[str], unit: str, title: str) -> str:
    """Figures by size of table, from zero, so that flat looks flat and nothing else does."""
    placed = {name: list(enumerate(values)) for name, values in lines.items()}
    most = max(value for values in lines.values() for value in values)
    return chart(title, steps("rows", labels), linear(unit, most), placed)


def over_time(lines: Mapping[str, Sequence[Point]], unit: str, title: str) -> str:
    """Values by seconds."""
    last = max(x for points in lines.values() for x, _ in points)
    most = max(y for points in lines.values() for _, y in points)
    return chart(title, linear("seconds", last), linear(unit, most), lines)


def chart(title: str, x: Axis, y: Axis, lines: Mapping[str, Sequence[Point]]) -> str:
    """A line chart. The x axis is stretched over exactly what its ticks cover."""

    def across(value: float) -> float:
        return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)

    colours = _colours(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style(set(colours.values()))}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
    ]
    for value, label in y.ticks:
        height = up(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in x.ticks:
        parts.append(
            f'<text class="tick" x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(f'<text class="tick" x="{LEFT - 8}" y="{TOP - 12}" text-anchor="start">{escape(y.title)}</text>')

    ends = []
    # Ours last, so that it lies on top.
    for name in sorted(lines, key=lambda one: one == OURS):
        points = [(across(px), up(py)) for px, py in lines[name]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        kind = " strong" if name == OURS else ""
        parts.append(f'<polyline class="line {colours[name]}{kind}" points="{path}"/>')
        if len(points) <= 12:
            parts += [f'<circle class="dot {colours[name]}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points]
        ends.append((points[-1], name))
    parts += _labels(ends, colours)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _colours(names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """A contender's own colour; anything else takes the next that is free."""
    chosen = {name: NAMED[name] for name in names if name in NAMED}
    free = iter([colour for colour in PALETTE if colour not in chosen.values()] * 3)
    return {name: chosen.get(name) or next(free) for name in names}


def _labels(ends: Sequence[tuple[Point, str]], colours: Mapping[str, str]) -> list[str]:
    """Names beside the lines' ends, pushed apart where lines end close together."""
    parts = []
    placed: list[list[Any]] = []
    for (px, py), name in sorted(ends):
        placed.append([px, py, py, name])
    placed.sort(key=lambda one: one[1])
    for above, below in pairwise(placed):
        below[2] = max(below[2], above[2] + LABEL_GAP)
    overflow = placed[-1][2] - (HEIGHT - BOTTOM + 4) if placed else 0
    if overflow > 0:
        placed[-1][2] -= overflow
        for below, above in pairwise(placed[::-1]):
            above[2] = min(above[2], below[2] - LABEL_GAP)
    for px, py, label_y, name in placed:
        if abs(label_y - py) > 3:
            parts.append(
                f'<line class="leader" x1="{px + 5:.1f}" y1="{py:.1f}" x2="{px + 13:.1f}" y2="{label_y:.1f}"/>'
            )
        parts.append(
            f'<text class="name {colours[name]}" x="{px + 16:.1f}" y="{label_y + 4:.1f}">{escape(name)}</text>'
        )
    return parts


def _style(used: AbstractSet[str]) -> str:
    def rules(colours: Mapping[str, str]) -> str:
        own = "".join(
            f".line.{name}{{stroke:{colours[name]}}}.dot.{name},.name.{name}{{fill:{colours[name]}}}"
            for name in PALETTE
            if name in used
        )
        return (
            f".paper{{fill:{colours['paper']}}}.title{{fill:{colours['ink']}}}.tick{{fill:{colours['quiet']}}}"
            f".rule{{stroke:{colours['rule']}}}.leader{{stroke:{colours['quiet']}}}{own}"
        )

    return (
        "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif}.title{font-size:15px;font-weight:600}"
        ".name{font-weight:600}.line{fill:none;stroke-width:1.75;stroke-linejoin:round}.strong{stroke-width:3.25}"
        ".leader{stroke-width:.75}"
        f"{rules(LIGHT)}@media (prefers-color-scheme:dark){{{rules(DARK)}}}"
    )
