"""How a table fits a terminal: which columns are kept, and which texts are cut. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

BETWEEN: Final = 3
"""Spaces between two columns."""
NARROWEST: Final = 12
"""Columns of the terminal that a name is given at least, before its column is left out."""
WRAPS_AT: Final = 24
"""The same for a text that takes several lines."""


def longest(rows: Sequence[Mapping[str, Any]], field: str, heading: str) -> int:
    """The width of a column whose texts are whole."""
    return max([len(heading), *(len(str(row[field])) for row in rows)])


def fitting(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    width: int,
    *,
    priority: Sequence[str] = (),
    shortens: Sequence[str] = (),
    wraps: str = "",
) -> dict[str, str]:
    """The columns that fit a terminal of this width: the first of `priority`, as many as fit, then the others. The
    first one is always kept; a column without any text is not. `shortens`: fields whose texts may be cut; `wraps`: the
    field whose texts may take several lines.
    """
    least = dict.fromkeys(shortens, NARROWEST) | {wraps: WRAPS_AT}
    kept: dict[str, int] = {}
    for field in [*priority, *(one for one in columns if one not in priority)]:
        if kept and not any(str(row[field]) for row in rows):
            continue
        taken = kept | {field: min(longest(rows, field, columns[field]), least.get(field, width))}
        if not kept or sum(taken.values()) + BETWEEN * len(taken) <= width:
            kept = taken
    return {field: heading for field, heading in columns.items() if field in kept}


def cut(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], width: int, shortens: Sequence[str]
) -> list[dict[str, str]]:
    """The texts of these columns, those of `shortens` cut to the room that the others leave."""
    room = width - BETWEEN * len(columns)
    room -= sum(longest(rows, field, heading) for field, heading in columns.items() if field not in shortens)
    cut_to: dict[str, int] = {}
    wanted = sorted((longest(rows, field, columns[field]), field) for field in shortens if field in columns)
    for left, (length, field) in enumerate(wanted):
        # The shortest first: what a short one leaves is the others'.
        cut_to[field] = min(length, max(NARROWEST, room // (len(wanted) - left)))
        room -= cut_to[field]
    return [{field: _cut(str(row[field]), cut_to.get(field)) for field in columns} for row in rows]


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"
