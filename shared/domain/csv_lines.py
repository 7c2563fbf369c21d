"""What the rows of a planner's CSV mean: columns by their names, and the times that spreadsheets write (docs/bulk.md).

Pure. The command line splits the file into cells; the rules for those cells stand here. No rule guesses: a cell that
could mean two things is refused, and the message says what is wanted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from pydantic_core import PydanticCustomError

from shared.domain import fields, hints, times
from shared.domain.errors import printable
from shared.domain.one_line import fault_of_line

SEPARATORS: Final = (",", ";", "\t")
NEEDED: Final = ("postId", "scheduledTime", "timezone")
KNOWN: Final = (*NEEDED, "caption", "revision")
WANTED_TIME: Final = "YYYY-MM-DD HH:MM, such as 2030-04-22 15:00"

_TIME: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?")
_NUMBER: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)?")
_SLASHES: Final = re.compile(r"[0-9]{1,4}[/.\-][0-9]{1,2}[/.\-][0-9]{1,4}")
_ZONE_NAME: Final = re.compile(r"[A-Za-z]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
_REVISION: Final = re.compile(r"[1-9][0-9]{0,17}")
# All that windows-1252 and its relatives may lack. A letter is one `?` or two, by the program.
_BEYOND: Final = re.compile(r"[^\x00-\x7f]")
_ONES: Final = re.compile(r"\?+")
_NO_LETTER: Final = re.compile(r"[\x00\ud800-\udfff]")


NOT_UTF8: Final = "holds bytes that are no UTF-8"
SAVE_AS_UTF8: Final = (
    'Save the file as UTF-8. Excel: "CSV UTF-8 (Comma delimited)". LibreOffice: "Edit filter settings", then '
    '"Unicode (UTF-8)". Numbers: "Advanced Options", then "Unicode (UTF-8)".'
)

_SEPARATOR_LINE: Final = re.compile(r'"?sep=.?"?[,;\s]*', re.IGNORECASE)


class HeaderError(Exception):
    """The first row does not name the columns; the message says what it should be."""


class LineError(Exception):
    """A row that says nothing that can be sent; the message names each value and what is wanted."""


class Columns(NamedTuple):
    """Where the known columns stand. `width`: cells of the first row."""

    separator: str
    places: Mapping[str, int]
    width: int


@dataclass(frozen=True, slots=True)
class PlannedPost:
    """What one row says. `caption` and `revision` are None unless the row has both: the caption, and the revision
    of the post that it was written for. `timezone` is empty where the exported post had none.
    """

    post_id: str
    local: str
    timezone: str
    caption: str | None = None
    revision: int | None = None


def says_separator(line: str) -> bool:
    """Whether it is the line `sep=;`, which Excel reads and does not show. The row of names shows the separator too."""
    return _SEPARATOR_LINE.fullmatch(line) is not None


def broken_quotes(lines: Iterable[str], separator: str) -> int | None:
    """The line, from 0, with the quotation mark that opens a cell and that no mark ends as RFC 4180 says. `lines`: from
    the begin of a row on. None where all are ended.
    """
    opened, state = 0, "begin"
    for number, line in enumerate(lines):
        for sign in line:
            if state == "quoted":
                state = "ended" if sign == '"' else state
            elif sign == '"' and state == "begin":
                opened, state = number, "quoted"
            elif sign == '"' and state == "ended":
                state = "quoted"  # two marks stand for one
            elif sign == separator or sign in "\r\n":
                state = "begin"
            elif state == "ended":
                return opened
            else:
                state = "plain"
    return opened if state == "quoted" else None


def columns(split: Mapping[str, Sequence[str]]) -> Columns:
    """The columns by their names. `split`: the cells of the first row, for each separator that it may be split at.

    Raises HeaderError.
    """
    separator = max(split, key=lambda one: sum(name.strip() in KNOWN for name in split[one]))
    names = [name.strip() for name in split[separator]]
    missing = [name for name in NEEDED if name not in names]
    wanted = f"the first line must name the columns {', '.join(NEEDED)}, in any order"
    if len(missing) == len(NEEDED):
        raise HeaderError(f'{wanted}, between commas, semicolons or tabs; it is "{printable(separator.join(names))}"')
    if missing:
        near = hints.near(missing[0], [name for name in names if name and name not in KNOWN])
        meant = f'; is it the column "{printable(near)}"? Rename that one' if near else ""
        raise HeaderError(f"{wanted}; there is no {missing[0]}{meant}")
    for name in KNOWN:
        if names.count(name) > 1:
            raise HeaderError(f"the first line names {name} twice; rename the column that is not meant")
    return Columns(separator, {name: names.index(name) for name in KNOWN if name in names}, len(names))


def planned(cells: Sequence[str], at: Columns) -> PlannedPost:
    """What a row says. Raises LineError."""
    if any(cell.strip() for cell in cells[at.width :]):
        raise LineError(
            f"has {len(cells)} cells, and the first line has {at.width}: put a cell that holds a separator in quotes"
        )
    given = {name: cells[place].strip() if place < len(cells) else "" for name, place in at.places.items()}
    if not given.get("revision"):
        # The caption counts beside a revision only.
        given.pop("caption", None)
    if unclean := [name for name, value in given.items() if not fields.is_clean(value)]:
        what = "holds NUL characters: it is no text" if any("\0" in given[name] for name in unclean) else NOT_UTF8
        shown = " ".join(_NO_LETTER.sub("\ufffd", given[unclean[0]]).split())
        raise LineError(f"{_shown(unclean[0], shown)} {what}")
    wrong: list[str] = []
    post_id, local, zone = (given[name] for name in NEEDED)
    if fault := _fault_of_id(post_id):
        wrong.append(f"{_shown('postId', post_id)} {fault}")
    found = local_time(local)
    if found is None:
        wrong.append(f"{_shown('scheduledTime', local)} {fault_of_time(local, zone)}")
    caption, revision = given.get("caption"), given.get("revision")
    if caption is None or not revision:
        caption = revision = None
    # A post without a zone is exported in UTC, with its revision.
    if zone not in times.ZONES and (zone or not given.get("revision")):
        wrong.append(f"{_shown('timezone', zone)} {fault_of_zone(zone)}")
    if revision is not None and not _REVISION.fullmatch(revision):
        wrong.append(f"{_shown('revision', revision)} is no whole number; wanted: the number that the export wrote")
    if wrong or found is None:
        raise LineError("; ".join(wrong))
    return PlannedPost(post_id, found, zone, caption and as_caption(caption), int(revision) if revision else None)


def local_time(cell: str) -> str | None:
    """`YYYY-MM-DDTHH:MM` of a cell that says it with T or with a blank. Seconds of `:00`, which spreadsheets add, say
    nothing more. None for everything else.
    """
    found = _TIME.fullmatch(cell)
    if found is None or found[3] not in (None, ":00"):
        return None
    local = f"{found[1]}T{found[2]}"
    return None if times.parse_local(local) is None else local


def occurs_twice(local: str, zone: str) -> bool:
    """Whether the clocks go back over this local time."""
    at, tz = datetime.fromisoformat(local), times.zone(zone)
    first, second = tz.utcoffset(at.replace(fold=0)), tz.utcoffset(at.replace(fold=1))
    return first is not None and second is not None and first > second


def fault_of_time(cell: str, zone: str) -> str:
    """Why a cell is no time, read after its value."""
    wanted = f"wanted: {WANTED_TIME}"
    if not cell:
        return f"is empty; {wanted}"
    found = _TIME.fullmatch(cell)
    if found is not None:
        whole = local_time(f"{found[1]} {found[2]}")
        return f"has seconds; {wanted}" if whole else f"is no time of any day in the calendar; {wanted}"
    if hint := hints.time(cell, zone):
        return f"has an offset{hint}"
    if _NUMBER.fullmatch(cell):
        return f"is a spreadsheet's number for a date; {wanted}; give the column that format before you save"
    if _SLASHES.match(cell):
        return f"has day and month as one program shows them; {wanted}; give the column that format before you save"
    return f"is no local time; {wanted}"


def fault_of_zone(name: str) -> str:
    """Why a cell is no zone that a post may have, read after its value."""
    wanted = f"wanted: one of {', '.join(times.ZONES)}"
    if not name:
        return f"is empty; {wanted}"
    same, is_zone = _same_clock(name)
    if same:
        return f"is no zone of posts; did you mean {same}, which has the same time?"
    # A name alike is no guess for a zone that there is: Europe/Paris is not what Europe/Athens means.
    near = "" if is_zone and "/" in name else hints.zone(name)
    return f"is no zone of posts{near}" if near else f"is no zone of posts; {wanted}"


@lru_cache(maxsize=1024)
def _same_clock(name: str) -> tuple[str | None, bool]:
    """Which of the zones shows the same time as this other zone, and whether the tzdata package has such a zone."""
    if not _ZONE_NAME.fullmatch(name):
        return None, False
    place = resources.files("tzdata.zoneinfo").joinpath(*name.split("/"))
    if not place.is_file():
        return None, False
    try:
        with place.open("rb") as data:
            other = ZoneInfo.from_file(data)
    except ValueError:  # a file of the package that is no zone
        return None, False
    offsets = _offsets(other)
    return next((one for one in times.ZONES if _offsets(times.zone(one)) == offsets), None), True


_FIRST_SAMPLE: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_SAMPLES: Final = tuple(_FIRST_SAMPLE + timedelta(days=10 * number) for number in range(400))


def _offsets(zone: ZoneInfo) -> tuple[timedelta | None, ...]:
    """The zone's offset every ten days for eleven years."""
    return tuple(at.astimezone(zone).utcoffset() for at in _SAMPLES)


# -- Captions and formulas. A spreadsheet would run a cell that begins like a formula. Such a cell gets an apostrophe in
# front, as OWASP's page on CSV injection says. A text that begins with apostrophes and such a sign gets one more. So it
# is read back as it was written. The signs count in full width too, and so does white space that a spreadsheet skips to
# find one.

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED: Final = re.compile(r"'+[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def safe_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain_text(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return cell[1:] if _QUOTED.match(cell) else cell


def as_caption(cell: str) -> str:
    """A caption as its cell says it: the line ends of every program are the same, and blanks around it say nothing."""
    return plain_text(cell).replace("\r\n", "\n").replace("\r", "\n").strip()


def lost_letters(stands: str, said: str) -> bool:
    """Whether a caption differs only by `?` where letters stood that an old character set lacks, such as an emoji. A
    spreadsheet writes that when it saves in such a set, without a word.
    """
    return stands != said and _ONES.sub("?", _BEYOND.sub("?", stands)) == _ONES.sub("?", said)


def may_have_lost_letters(stands: str, said: str) -> bool:
    """Whether a caption that a person changed has more `?`, and lacks letters that an old character set lacks. In a
    file that lost letters elsewhere, such a `?` is no punctuation.
    """
    return said.count("?") > stands.count("?") and not set(_BEYOND.findall(stands)) <= set(said)


def same_caption(one: str, other: str) -> bool:
    """Whether two captions differ in no more than line ends and the blanks around them."""
    return as_caption(safe_cell(one)) == as_caption(safe_cell(other))


def _shown(name: str, value: str) -> str:
    return f'{name} "{printable(value)}"' if value else name


def _fault_of_id(given: str) -> str:
    if not given:
        return "is empty; wanted: the id of a post, such as post_abc123"
    try:
        fields.identifier(given)
    except PydanticCustomError as fault:
        return fault.message()
    # A terminal runs control characters, and an id is shown in many places after this one.
    return fault_of_line(given) or ""
