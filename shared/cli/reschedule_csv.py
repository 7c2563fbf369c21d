"""CSV of any length for `redraft reschedule --csv`: checked line by line, sent in parts that fit one job each.

The file is read twice: first to check all lines before anything is sent, then to send them. Only the ids that it names
are kept in memory. What the cells mean is decided in shared/domain/csv_lines.py.
"""

import codecs
import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from shared.domain import csv_lines
from shared.domain.csv_lines import SEPARATORS, HeaderError, LineError, PlannedPost
from shared.domain.plurals import counted
from shared.domain.reschedule_requests import ITEM_FIELDS, MOST_ITEMS

MOST_BYTES: Final = 2_000_000
"""Of items in one request, below the 2 MiB that the API takes."""
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")
)  # fmt: skip


class BadFileError(Exception):
    """The file as a whole is no such CSV; the message says what it should be."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row below the header. `number`: of its first line in the file, from 1; `row`: as a spreadsheet counts rows.

    `fault` says why `post` is None.
    """

    number: int
    row: int
    post: PlannedPost | None
    fault: str = ""

    @property
    def place(self) -> str:
        """`line 14`, and the row of a spreadsheet where that is another number."""
        return f"line {self.number}" + (f" (row {self.row})" if self.row != self.number else "")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, or standard input for `-`, as something that can be read twice. Raises BadFileError."""
    if str(path) != "-":
        try:
            with path.open("rb") as file:
                yield file
        except OSError as error:
            raise BadFileError(f"{path} cannot be read: {error.strerror}") from error
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        yield copy


def judged(file: IO[bytes]) -> Iterator[Line]:
    """Every row below the header, good or bad; blank ones are passed over. Raises BadFileError for a wrong header."""
    with _decoded(file) as text:
        before, hidden, first = _first_row(text)
        split = {separator: _cells(first, separator) for separator in SEPARATORS}
        try:
            at = csv_lines.columns(split)
        except HeaderError as wrong:
            raise BadFileError(str(wrong)) from None
        named: dict[str, int] = {}
        for number, row, cells, broken in _rows(text, at.separator, before, hidden):
            if broken:
                yield Line(number, row, None, broken)
            elif any(cell.strip() for cell in cells):
                try:
                    post = csv_lines.planned(cells, at)
                except LineError as wrong:
                    yield Line(number, row, None, str(wrong))
                    continue
                first_named = named.setdefault(post.post_id, number)
                if first_named != number:
                    yield Line(number, row, None, f'postId "{post.post_id}" stands in line {first_named} already')
                else:
                    yield Line(number, row, post)


def _first_row(text: io.TextIOWrapper) -> tuple[int, int, str]:
    """The first line that is not blank, its number, and how many lines before it a spreadsheet does not show."""
    hidden = 0
    for number, line in enumerate(text, 1):
        if number == 1 and csv_lines.says_separator(line):
            hidden = 1
        elif line.strip("".join(SEPARATORS) + ' "\r\n'):
            return number, hidden, line
    return 0, hidden, ""


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def _rows(
    text: io.TextIOWrapper, separator: str, before: int, hidden: int
) -> Iterator[tuple[int, int, list[str], str]]:
    """Each row with the number of its first line and its own; the last says what is broken about it. `before`: lines
    that were read already, of which a spreadsheet does not show `hidden`.
    """
    lines: list[str] = []

    def kept() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=separator, strict=True)
    row = before - hidden
    while True:
        lines.clear()
        number = before + reader.line_num + 1
        row += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            opened = csv_lines.broken_quotes(lines, separator)
            fault = f"is no CSV: {error}" if opened is None else _fault_of_quotes(len(lines) - opened)
            yield number + (opened or 0), row, [], fault
            continue
        if cells is None:
            return
        yield number, row, cells, ""


def _fault_of_quotes(lines: int) -> str:
    """`lines`: how many the cell took until it broke."""
    there = f", and takes this line and {counted(lines - 1, 'more line')}" if lines > 1 else ""
    return f"is no CSV: a cell begins with a quotation mark{there}; end the cell with one, and double those inside it"


@contextmanager
def _decoded(file: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    """The file as text, from its begin. A byte that is no UTF-8 becomes a lone surrogate, which no field may hold.

    Raises BadFileError.
    """
    file.seek(0)
    begin = file.read(64)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if begin.startswith(mark)), (b"", "utf-8"))
    if not mark and b"\0" in begin[:8]:
        raise BadFileError("this is no text in UTF-8, nor in UTF-16 with a mark at its begin; save it as CSV UTF-8")
    file.seek(len(mark))
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    text = io.TextIOWrapper(file, encoding, errors, newline="")
    try:
        yield text
    except UnicodeDecodeError as error:
        raise BadFileError(f"the file is broken: {error.reason} in {error.encoding}; save it as CSV UTF-8") from None
    finally:
        text.detach()


def parts(posts: Iterable[PlannedPost]) -> Iterator[list[dict[str, Any]]]:
    """Rows as items of requests, as many together as fit one job."""
    part: list[dict[str, Any]] = []
    size = 0
    for post in posts:
        item = dict(zip(ITEM_FIELDS, (post.post_id, post.local, post.timezone), strict=True))
        length = len(json.dumps(item)) + 1
        if part and (len(part) == MOST_ITEMS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
