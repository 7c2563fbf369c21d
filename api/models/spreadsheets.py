"""CSV that a person may open in a spreadsheet (RFC 4180).

A cell that begins like a formula would be run there, and some cells hold what a client sent. Such a cell gets an
apostrophe in front (`csv_lines.safe_cell`) and quotes around it, as OWASP's page on CSV injection says.
"""

import re
from collections.abc import Iterable

from shared.domain.csv_lines import safe_cell

_QUOTED = re.compile(r'[",;\r\n\t]|^\s|\s$')


def lines(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as lines in UTF-8, each ended by CRLF; None is an empty cell."""
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    safe = safe_cell(text)
    if safe == text and not _QUOTED.search(text):
        return text
    doubled = safe.replace('"', '""')
    return f'"{doubled}"'
