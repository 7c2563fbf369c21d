"""CSV of any length for `redraft reschedule --csv`: checked line by line, sent in parts that fit one job each.

The file is read twice: first to check all lines before anything is sent, then to send them. Only the ids that it names
are kept in memory.
"""

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from shared.domain.errors import Faults
from shared.domain.fields import UNSET
from shared.domain.reschedule_requests import ITEM_FIELDS, MOST_ITEMS, Item, check_item

MOST_BYTES: Final = 2_000_000
"""Of items in one request, below the 2 MiB that the API takes."""


class BadFileError(Exception):
    """The file as a whole is no such CSV; the message says what it should be."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line below the header, by its number in the file (the header is line 1). `fault` says why `item` is None."""

    number: int
    item: Item | None
    fault: str = ""


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
    """Every line below the header, good or bad; blank ones are passed over. Raises BadFileError for a wrong header."""
    file.seek(0)
    rows = _rows(file)
    header = next(rows, None)
    wanted = ",".join(ITEM_FIELDS)
    if header is None or header[1] != list(ITEM_FIELDS):
        found = "nothing" if header is None else ",".join(header[1])[:200]
        raise BadFileError(f"the first line must be {wanted}, and is {found!r}")
    named: dict[str, int] = {}
    for number, cells, broken in rows:
        if broken:
            yield Line(number, None, broken)
        elif cells:
            yield _judged(number, cells, named)


def _judged(number: int, cells: list[str], named: dict[str, int]) -> Line:
    if len(cells) != len(ITEM_FIELDS):
        return Line(number, None, f"has {len(cells)} fields instead of {len(ITEM_FIELDS)}: {', '.join(ITEM_FIELDS)}")
    faults = Faults()
    item = check_item(dict(zip(ITEM_FIELDS, cells, strict=True)), "", faults)
    error = faults.error()
    if item is UNSET or error is not None:
        return Line(number, None, "; ".join(detail.message.lstrip(".") for detail in error.details) if error else "")
    first = named.setdefault(item.post_id, number)
    if first != number:
        return Line(number, None, f"names the same post as line {first}")
    return Line(number, item)


def _rows(file: IO[bytes]) -> Iterator[tuple[int, list[str], str]]:
    """Each record with the number of its first line; the third says what is broken about it."""
    text = _decoded(file)
    reader = csv.reader(text, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield number, [], f"is no CSV: {error}"
            continue
        if cells is None:
            return
        yield number, cells, ""


def _decoded(file: IO[bytes]) -> Iterator[str]:
    """The lines as text. A byte that is no UTF-8 becomes a lone surrogate, which no field may hold."""
    for count, line in enumerate(file):
        yield (line.removeprefix(b"\xef\xbb\xbf") if count == 0 else line).decode("utf-8", "surrogateescape")


def parts(lines: Iterable[Line], first_line: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The good lines from `first_line` on, as items of requests with their numbers, as many together as fit one job."""
    part: list[tuple[int, dict[str, Any]]] = []
    size = 0
    for line in lines:
        if line.item is None or line.number < first_line:
            continue
        item = dict(zip(ITEM_FIELDS, line.item, strict=True))
        length = len(json.dumps(item)) + 1
        if part and (len(part) == MOST_ITEMS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append((line.number, item))
        size += length
    if part:
        yield part
