"""What the rows of a planner's CSV mean."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import csv_lines
from shared.domain.csv_lines import HeaderError, LineError, PlannedPost
from shared.domain.times import ZONES

AT = csv_lines.columns({",": ["postId", "scheduledTime", "timezone", "caption", "revision"], ";": [""], "\t": [""]})


def planned(*cells: str) -> PlannedPost:
    return csv_lines.planned(cells, AT)


def fault(*cells: str) -> str:
    with pytest.raises(LineError) as wrong:
        planned(*cells)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["postId", "scheduledTime", "timezone"], {"postId": 0, "scheduledTime": 1, "timezone": 2}),
        (["note", " timezone ", "", "postId", "scheduledTime"], {"postId": 3, "scheduledTime": 4, "timezone": 1}),
    ],
)
@pytest.mark.parametrize("separator", csv_lines.SEPARATORS)
def test_columns_are_found_by_name_in_any_order_at_any_separator(
    separator: str, names: list[str], places: dict[str, int]
) -> None:
    split = {one: names if one == separator else [separator.join(names)] for one in csv_lines.SEPARATORS}
    found = csv_lines.columns(split)
    assert (found.separator, dict(found.places), found.width) == (separator, places, len(names))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "postId, scheduledTime, timezone, in any order, between commas, semicolons or tabs"),
        (["post", "time", "zone"], 'it is "post,time,zone"'),
        (["postId", "timezone"], "there is no scheduledTime"),
        (["Post ID", "timezone", "scheduledTime"], 'there is no postId; is it the column "Post ID"? Rename'),
        (["postId", "timezone", "scheduledTime", "postId"], "names postId twice"),
        (["postId", "timezone", "scheduledTime", "caption", "caption"], "names caption twice"),
    ],
)
def test_a_first_row_without_the_columns_is_refused_in_words(names: list[str], words: str) -> None:
    with pytest.raises(HeaderError) as wrong:
        csv_lines.columns({",": names, ";": [",".join(names)], "\t": [",".join(names)]})
    assert words in str(wrong.value)


@pytest.mark.parametrize(
    ("cell", "local"),
    [
        ("2031-03-01T09:00", "2031-03-01T09:00"),
        ("2031-03-01 09:00", "2031-03-01T09:00"),
        ("2031-03-01 09:00:00", "2031-03-01T09:00"),
        ("2031-03-01T09:00:00", "2031-03-01T09:00"),
    ],
)
def test_a_time_has_a_t_or_a_blank_and_seconds_that_say_nothing(cell: str, local: str) -> None:
    assert csv_lines.local_time(cell) == local


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", "scheduledTime is empty; wanted: YYYY-MM-DD HH:MM, such as 2030-04-22 15:00"),
        ("4/22/2024 15:00", "has day and month as one program shows them"),
        ("4/22/24 3:00 PM", "has day and month as one program shows them"),
        ("22.04.2024 15:00", "has day and month as one program shows them"),
        ("22-04-2024 15:00:00", "has day and month as one program shows them"),
        ("2024/04/22 15:00", "has day and month as one program shows them"),
        ("45404.625", "is a spreadsheet's number for a date"),
        ("45404,625", "is a spreadsheet's number for a date"),
        ("45404", "is a spreadsheet's number for a date"),
        ("2031-03-01 09:00:30", "has seconds"),
        ("2031-02-30 09:00", "is no time of any day in the calendar"),
        ("2031-03-01 24:00", "is no time of any day in the calendar"),
        ("2031-03-01 9:00", "wanted: YYYY-MM-DD HH:MM"),
        ("2031-03-01", "wanted: YYYY-MM-DD HH:MM"),
        ("tomorrow", "is no local time"),
        ("########", "is no local time"),
        ("2031-03-01T09:00Z", "has an offset; answers show UTC, requests take local time: in Asia/Tokyo that is"),
        ("2031-03-01T09:00+01:00", "has an offset"),
        ("٢٠٣١-03-01 09:00", "is no local time"),
    ],
)
def test_any_other_time_is_refused_with_its_value_and_what_is_wanted(cell: str, words: str) -> None:
    assert csv_lines.local_time(cell) is None
    told = fault("post_a", cell, "Asia/Tokyo")
    assert words in told
    assert "wanted" in told or "send" in told
    assert not cell or f'"{cell}"' in told or not cell.isascii()


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("Europe/Berlin", "did you mean Europe/Paris, which has the same time?"),
        ("America/Toronto", "did you mean America/New_York, which has the same time?"),
        ("Asia/Seoul", "did you mean Asia/Tokyo, which has the same time?"),
        ("US/Pacific", "did you mean America/Los_Angeles"),
        ("est", "did you mean America/New_York?"),
        ("europe paris", "did you mean Europe/Paris?"),
        ("Asia/Tokio", "did you mean Asia/Tokyo?"),
        ("Europe/Athens", "wanted: one of America/New_York, "),
        ("Mars", "wanted: one of America/New_York, "),
        ("../../etc/passwd", "wanted: one of America/New_York, "),
        ("Europe", "wanted: one of America/New_York, "),
        ("", "timezone is empty; wanted: one of America/New_York, "),
    ],
)
def test_another_zone_is_refused_with_a_guess_only_where_it_is_one(zone: str, words: str) -> None:
    assert words in fault("post_a", "2031-03-01 09:00", zone)


def test_a_row_names_every_value_at_fault() -> None:
    told = fault("", "x", "Mars", "", "many")
    assert [part.split()[0] for part in told.split("; ") if "wanted" not in part] == [
        "postId",
        "scheduledTime",
        "timezone",
        "revision",
    ]
    assert 'revision "many"' in told


def test_a_value_of_any_length_or_kind_is_told_in_few_printable_characters() -> None:
    told = fault("post_a", "\x1b[31m" + "x" * 10_000, "Asia/Tokyo")
    assert len(told) < 200
    assert told.isprintable()
    assert 'postId "�" holds bytes that are no UTF-8' in fault("\udcff", "2031-03-01 09:00", "Asia/Tokyo")
    assert 'caption "caf�" holds bytes that are no UTF-8' in fault("a", "x", "Asia/Tokyo", "caf\udce9", "1")
    assert 'scheduledTime "�9" holds NUL characters: it is no text' in fault("a", "\x009", "Asia/Tokyo")
    assert planned("a", "2031-03-01 09:00", "Asia/Tokyo", "caf\udce9").caption is None
    assert "255 characters" in fault("a" * 256, "2031-03-01 09:00", "Asia/Tokyo")


@pytest.mark.parametrize("sign", ["\x1b]0;owned\x07", "\n", "\x9b", "\u202e", "\u2028"])
def test_an_id_with_control_characters_is_refused_and_shown_without_them(sign: str) -> None:
    told = fault(f"post_{sign}x", "2031-03-01 09:00", "Asia/Tokyo", "hi", "1")
    assert told.startswith(f'postId "post_{sign.encode("unicode_escape").decode()}x" must be one line without control')
    assert told.isprintable()


def test_a_row_that_is_shorter_has_empty_cells_and_one_that_is_longer_is_told() -> None:
    assert planned("post_a", "2031-03-01 09:00", "Asia/Tokyo").caption is None
    assert planned("post_a", "2031-03-01 09:00", "Asia/Tokyo", "hi", "3", "", " ").revision == 3
    assert "6 cells, and the first line has 5" in fault("post_a", "2031-03-01 09:00", "Asia/Tokyo", "hi", "3", "x")


def test_a_caption_counts_only_beside_a_revision() -> None:
    assert planned("post_a", "2031-03-01 09:00", "Asia/Tokyo", "hi", "").caption is None
    assert planned("post_a", "2031-03-01 09:00", "Asia/Tokyo", "", "7").caption == ""


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49 30", "'+49 30"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("'=1", "''=1"),
        ("''=1", "'''=1"),
        ("'tis", "'tis"),
        ("a=1", "a=1"),
        (" =1", " =1"),
        ("", ""),
    ],
)
def test_a_cell_that_begins_like_a_formula_gets_an_apostrophe(text: str, cell: str) -> None:
    assert csv_lines.safe_cell(text) == cell
    assert csv_lines.plain_text(cell) == text


@given(st.text(st.sampled_from("'=+-@\t\r\nab\uff1d "), max_size=6))
def test_a_text_is_read_back_as_it_was_and_no_spreadsheet_runs_it(text: str) -> None:
    cell = csv_lines.safe_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert csv_lines.plain_text(cell) == text
    assert csv_lines.same_caption(text, csv_lines.as_caption(cell))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a\r\nb", "a\nb", True),
        ("a\rb ", " a\nb", True),
        ("'=1", "=1", False),
        ("a b", "a  b", False),
        ("", " ", True),
        ("A", "a", False),
    ],
)
def test_captions_that_differ_in_line_ends_and_outer_blanks_are_the_same(one: str, other: str, same: bool) -> None:
    assert csv_lines.same_caption(one, other) is same


@pytest.mark.parametrize(
    ("stands", "said", "lost"),
    [
        ("like a pro 👇", "like a pro ?", True),
        ("like a pro 👇", "like a pro ??", True),
        ("✨ grüße ✨", "? gr??e ?", True),
        ("why?", "why?", False),
        ("why", "why?", False),
        ("like a pro 👇", "like a pro", False),
        ("like a pro 👇", "like a bee ?", False),
    ],
)
def test_letters_that_became_question_marks_are_noticed(stands: str, said: str, lost: bool) -> None:
    assert csv_lines.lost_letters(stands, said) is lost


@pytest.mark.parametrize(
    ("stands", "said", "lost"),
    [
        ("like a pro 👇", "like a bee ?", True),
        ("like a pro 👇", "like a bee", False),
        ("like a pro 👇", "like a bee 👇?", False),
        ("like a pro", "like a bee?", False),
        ("why? 👇", "why?", False),
    ],
)
def test_letters_of_a_changed_caption_may_have_become_question_marks(stands: str, said: str, lost: bool) -> None:
    assert csv_lines.may_have_lost_letters(stands, said) is lost


@pytest.mark.parametrize(
    ("line", "says"),
    [("sep=;\r\n", True), ("SEP=,", True), ('"sep=;";;\n', True), ("sep=\t\n", True), ("sep=;x", False), ("", False)],
)
def test_excels_line_of_the_separator_is_known(line: str, says: bool) -> None:
    assert csv_lines.says_separator(line) is says


@pytest.mark.parametrize(
    ("lines", "opened"),
    [
        (['a,"b', "c", "d"], 0),
        (['"a', 'b",c,"d', "e"], 1),
        (['"a ""b"" c",""'], None),
        (['"a""b,c\n', "d\n"], 0),
        (['a,"b"c'], 0),
        (['"b\n', 'c,"cap"\n'], 0),
        (['a "b" c, "d'], None),
        (['"a","b"\r\n'], None),
        ([], None),
    ],
)
def test_the_line_of_the_quotation_mark_that_nothing_ends_is_found(lines: list[str], opened: int | None) -> None:
    assert csv_lines.broken_quotes(lines, ",") == opened
    broken = False
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error:
        broken = True
    assert broken is (opened is not None)


def test_every_zone_of_posts_is_taken() -> None:
    for zone in ZONES:
        assert planned("post_a", "2031-03-01 09:00", zone).timezone == zone
