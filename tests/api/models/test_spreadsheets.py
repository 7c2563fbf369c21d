"""CSV: what a spreadsheet would run is text, and everything is read back as it was."""

import csv
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import spreadsheets


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
        ("=1+1", '"\'=1+1"'),
        ('=cmd|"/c calc"!A0', '"\'=cmd|""/c calc""!A0"'),
        ("+49 30", '"\'+49 30"'),
        ("-1", '"\'-1"'),
        (-1, '"\'-1"'),
        ("@SUM(A1)", '"\'@SUM(A1)"'),
        ("\t=1", '"\'\t=1"'),
        ("\r=1", '"\'\r=1"'),
        ("\n=1", '"\'\n=1"'),
        ("\uff1d1+1", '"\'\uff1d1+1"'),
        ("a=1", "a=1"),
        ("2026-04-22T15:00:00Z", "2026-04-22T15:00:00Z"),
        (" =1", '" =1"'),
    ],
)
def test_a_cell(value: object, written: str) -> None:
    assert spreadsheets.lines([["x", value]]) == f"x,{written}\r\n".encode()


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=4), max_size=4))
def test_every_cell_is_read_back_with_at_most_an_apostrophe_in_front_and_none_is_a_formula(
    rows: list[list[str]],
) -> None:
    found = read(spreadsheets.lines(rows))
    assert [len(row) for row in found] == [len(row) for row in rows]
    for cell, value in zip(itertools.chain(*found), itertools.chain(*rows), strict=True):
        assert cell in (value, f"'{value}")
        assert not cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
