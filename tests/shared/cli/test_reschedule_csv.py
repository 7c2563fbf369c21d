"""Reading the CSV of `redraft reschedule --csv`: as spreadsheets write it, and broken in every way."""

import io
import json
from pathlib import Path

import pytest

from shared.cli import reschedule_csv
from shared.cli.reschedule_csv import BadFileError, Line, judged
from tests.shared.cli.rescheduling import command
from tests.stack import Running

HEADER = "postId,scheduledTime,timezone"
FILES = Path(__file__).parent / "spreadsheets"
SAVED = ["plan", "libreoffice", "libreoffice-semicolon", "libreoffice-tab-utf16", "xlsx", "ods"]
PLAN = [
    ("post_a", "2031-03-03T09:00", "America/New_York", 'Hello, "world"', 3),
    ("post_b", "2031-03-04T18:30", "America/New_York", "=1+1", 1),
    ("post_c", "2031-03-05T00:00", "Europe/Paris", "two\nlines ünï 🎉", 12),
    ("post_d", "2031-03-12T23:59", "Asia/Tokyo", "-5 reasons; one of them", 2),
    ("post_e", "2031-04-22T15:00", "Europe/London", "@kim thanks", 2),
]


def read(data: bytes) -> list[Line]:
    return list(judged(io.BytesIO(data)))


def told(data: bytes) -> dict[int, str]:
    return {line.number: line.fault for line in read(data) if line.post is None}


def plan_of(lines: list[Line]) -> list[tuple[object, ...]]:
    assert [line.fault for line in lines if line.post is None] == []
    posts = [line.post for line in lines if line.post]
    return [(one.post_id, one.local, one.timezone, one.caption, one.revision) for one in posts]


@pytest.mark.parametrize(
    "name", ["plan", "libreoffice", "libreoffice-semicolon", "libreoffice-tab-utf16", "xlsx", "ods"]
)
def test_a_file_that_a_spreadsheet_saved_says_what_it_said_before(name: str) -> None:
    lines = read((FILES / f"{name}.csv").read_bytes())
    assert plan_of(lines) == PLAN
    # The third caption has two lines, so that lines and the spreadsheet's rows differ below it; one row is blank.
    assert [line.place for line in lines] == ["line 2", "line 3", "line 4", "line 6 (row 5)", "line 8 (row 7)"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("us-dates", '"03/03/2031 09:00:00" has day and month as one program shows them'),
        ("german-dates", '"03.03.2031 09:00:00" has day and month as one program shows them'),
        ("day-numbers", '"47910.375" is a spreadsheet\'s number for a date'),
    ],
)
def test_times_that_a_spreadsheet_changed_are_refused_and_never_guessed(name: str, words: str) -> None:
    lines = read((FILES / f"{name}.csv").read_bytes())
    assert [line.post for line in lines] == [None] * 5
    assert words in lines[0].fault
    assert "wanted: YYYY-MM-DD HH:MM" in lines[0].fault


def test_a_caption_that_lost_its_letters_is_told() -> None:
    assert told((FILES / "libreoffice-windows-1252.csv").read_bytes()) == {
        4: 'caption "two lines �n� ?" holds bytes that are no UTF-8'
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_any_separator_line_end_and_coding_with_blank_rows_and_blanks(end: str, separator: str, coding: str) -> None:
    rows = [
        "",
        " , ,",
        "note, timezone ,scheduledTime,postId",
        ",,,",
        'a "quoted" note,Europe/Paris , 2031-03-01 09:00\u00a0,post_ä',
        "   ",
        '"two\nlines",Asia/Tokyo,2031-03-01T09:00, post_b ,,',
        "",
        ",,,",
    ]
    text = end.join(rows).replace(",", separator) + end
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(coding, b"")
    assert plan_of(read(mark + text.encode(coding))) == [
        ("post_ä", "2031-03-01T09:00", "Europe/Paris", None, None),
        ("post_b", "2031-03-01T09:00", "Asia/Tokyo", None, None),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"postId,scheduledTime,timezone\n\xff,2031-03-01T09:00,Asia/Tokyo\n", {2: "no UTF-8"}),
        (b"postId,scheduledTime,timezone\na\0b,2031-03-01T09:00,Asia/Tokyo\nb,x,Asia/Tokyo\n", {2: "NUL", 3: "local"}),
        (
            b'postId,scheduledTime,timezone\n"a\nb",2031-03-01T09:00,Asia/Tokyo\nc,x,Asia/Tokyo\n',
            {2: 'postId "a\\nb" must be one line', 4: "local"},
        ),
        (
            b"postId,scheduledTime,timezone\n\x1b[2Ja,2031-03-01T09:00,Asia/Tokyo\n",
            {2: 'postId "\\x1b[2Ja" must be one line without control characters'},
        ),
        (b'postId,scheduledTime,timezone\n"a"b,2031-03-01T09:00,Asia/Tokyo\n', {2: "no CSV"}),
        (
            b'postId,scheduledTime,timezone\na,2031-03-01T09:00,Asia/Tokyo\n"b,never closed\nc,,\n',
            {3: "a cell begins with a quotation mark, and takes this line and 1 more line; end the cell with one"},
        ),
        (b'postId,scheduledTime,timezone\n"a\nb","never\nclosed\n', {3: "takes this line and 1 more line"}),
        (b'postId,scheduledTime,timezone\n"a\nb","c\nd"e,\nf,x,Asia/Tokyo\n', {3: "no CSV", 5: "local"}),
        (b"postId,scheduledTime,timezone\n,,\n", {}),
        (b"postId,scheduledTime,timezone\na,2031-03-01T09:00,Asia/Tokyo,x\n", {2: "has 4 cells, and the first line"}),
        (b"postId,scheduledTime,timezone\n" + b"x" * 200_000 + b",2031-03-01T09:00,Asia/Tokyo\n", {2: "no CSV"}),
        (
            b"postId,scheduledTime,timezone\na,2031-03-01T09:00,Asia/Tokyo\n\na,2031-03-02T09:00,Asia/Tokyo\n",
            {4: 'postId "a" stands in line 2 already'},
        ),
    ],
)
def test_broken_lines_are_told_by_number_whatever_breaks_them(data: bytes, expected: dict[int, str]) -> None:
    found = told(data)
    assert found.keys() == expected.keys()
    assert all(words in found[number] for number, words in expected.items()), found


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_excels_first_line_is_passed_over_and_a_spreadsheet_shows_no_row_of_it(separator: str, coding: str) -> None:
    lines = ["sep=;", HEADER, "post_a,2031-03-01 09:00,Asia/Tokyo", ",,", "post_b,x,Asia/Tokyo", ""]
    found = read("\r\n".join(lines).replace(",", separator).encode(coding))
    assert [(line.place, line.post is None) for line in found] == [("line 3 (row 2)", False), ("line 5 (row 4)", True)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the first line must name the columns"),
        (b"\n \n,,\n", "the first line must name the columns"),
        (b"post,time,zone\n", "the first line must name the columns"),
        (b"post_a,2031-03-01T09:00,Asia/Tokyo\n", "the first line must name the columns"),
        (b"\xff\xfep\0o\0s", "the file is broken"),
        (HEADER.encode("utf-16-le"), "no text in UTF-8, nor in UTF-16 with a mark"),
        (b"PK\x03\x04\x14\0\0\0", "no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused_as_a_whole(data: bytes, words: str) -> None:
    with pytest.raises(BadFileError, match=words):
        read(data)


@pytest.mark.parametrize("name", ["libreoffice-header", "header-and-blank-rows"])
def test_a_header_alone_says_that_there_is_nothing_to_do(stack: Running, name: str, tmp_path: Path) -> None:
    path = FILES / f"{name}.csv"
    if not path.exists():
        path = tmp_path / "moves.csv"
        path.write_text(f"{HEADER}\r\n,,\r\n\r\n")
    for arguments in (["--yes"], ["--dry-run"]):
        result = command(stack, "--csv", str(path), *arguments)
        assert (result.exit_code, result.stdout) == (0, "The file has no lines to read: nothing to do.\n"), (
            result.output
        )


def test_bytes_of_an_old_character_set_are_told_with_how_to_save_the_file(stack: Running) -> None:
    result = command(stack, "--csv", str(FILES / "libreoffice-windows-1252.csv"), "--yes")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert 'line 4: caption "two' in result.stderr
    assert result.stderr.count('Excel: "CSV UTF-8 (Comma delimited)"') == 1


def test_parts_stay_below_what_a_request_may_have(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("\n".join([HEADER, *(f"{number:0255},2031-03-01T09:00,Europe/Paris" for number in range(9_000))]))
    with reschedule_csv.opened(path) as file:
        parts = list(reschedule_csv.parts(line.post for line in judged(file) if line.post))
    assert sum(map(len, parts)) == 9_000
    assert len(parts) > 1
    assert all(len(json.dumps({"items": part})) < 2 * 1024 * 1024 for part in parts)
    assert [int(item["postId"]) for part in parts for item in part] == list(range(9_000))
