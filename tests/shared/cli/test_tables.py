"""Tables fit a terminal: whole ids, a row a line, columns left out by priority. Pure, and in a real command."""

from typing import Any

import pytest

from shared.cli import tables

ROWS: list[dict[str, Any]] = [
    {
        "keyId": "key_" + "a" * 26,
        "name": "importer",
        "scopes": "posts:read posts:write bulk",
        "made": "3 d ago",
        "no": "",
    },
    {"keyId": "key_" + "b" * 26, "name": "x" * 90, "scopes": "bulk", "made": "2 min", "no": ""},
]
COLUMNS = {"keyId": "id", "name": "name", "scopes": "scopes", "made": "created", "no": "revoked"}
CUT = ("name", "scopes")


def widest(width: int, **given: Any) -> tuple[list[str], int]:
    kept = tables.fitting(ROWS, COLUMNS, width, shortens=CUT, **given)
    rows = tables.cut(ROWS, kept, width, CUT)
    lengths = [max(len(heading), *(len(row[field]) for row in rows)) for field, heading in kept.items()]
    return list(kept), sum(lengths) + tables.BETWEEN * len(kept)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_a_table_is_no_wider_than_the_terminal_and_its_first_column_is_whole(width: int) -> None:
    kept, takes = widest(width)
    assert kept[0] == "keyId"
    assert takes <= width or kept == ["keyId"]
    assert "no" not in kept


def test_the_columns_that_matter_most_stay_in_the_tables_own_order() -> None:
    assert widest(80)[0] == ["keyId", "name", "scopes", "made"]
    assert widest(60)[0] == ["keyId", "name", "made"]
    assert widest(50, priority=("keyId", "scopes"))[0] == ["keyId", "scopes"]


def test_a_name_is_cut_to_the_room_that_the_others_leave() -> None:
    kept = tables.fitting(ROWS, COLUMNS, 80, shortens=CUT)
    first, second = tables.cut(ROWS, kept, 80, CUT)
    assert first["name"] == "importer"
    assert second["name"].endswith("x…")
    assert second["keyId"] == ROWS[1]["keyId"]
