"""CSV: what a spreadsheet would run is text, and everything is read back as it was."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import spreadsheets
from shared.domain.csv_lines import safe_cell


def read(raw: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(raw.decode(), newline="")))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("post_abc123", "post_abc123"),
        (None, ""),
        ("", ""),
        (7, "7"),
        ("a,b", '"a,b"'),
        ('say "hi"', '"say ""hi"""'),
        ("two\nlines", '"two\nlines"'),
        ('=cmd|"/c calc"!A0', '"\'=cmd|""/c calc""!A0"'),
        ("'=1", "\"''=1\""),
        (-1, '"\'-1"'),
        ("2026-04-22T15:00:00Z", "2026-04-22T15:00:00Z"),
        (" =1", '" =1"'),
    ],
)
def test_a_cell(value: object, written: str) -> None:
    assert spreadsheets.lines([["x", value]]) == f"x,{written}\r\n".encode()


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4), max_size=4))
def test_every_cell_is_read_back_as_the_rule_of_formulas_has_it(rows: list[list[str]]) -> None:
    assert read(spreadsheets.lines(rows)) == [[safe_cell(cell) for cell in row] for row in rows]
