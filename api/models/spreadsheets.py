"""CSV that a person may open in a spreadsheet (RFC 4180).

A cell that begins like a formula would be run there, and some cells hold what a client sent. Such a cell gets an
apostrophe in front and quotes around it, as OWASP's page on CSV injection says.
"""

import re
from collections.abc import Iterable

# The signs, in full width too, and white space that a spreadsheet skips to find one.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED = re.compile(r'[",;\r\n\t]|^\s|\s$')


def lines(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as lines in UTF-8, each ended by CRLF; None is an empty cell."""
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if _FORMULA.match(text):
        text = f"'{text}"
    elif not _QUOTED.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
