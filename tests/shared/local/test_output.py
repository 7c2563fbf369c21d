"""The terminal of `redraft up`: names and levels in colour, and a warning that comes again is counted."""

import json

import pytest

from shared.local.output import AGAIN_WITHIN, Output, Repeats

WARNING = "13:10:45 [warning  ] ring_failed task=edits.apply"
LATER = "13:10:47 [warning  ] ring_failed task=edits.apply"
OTHER = "13:10:47 [warning  ] ring_failed task=posts.publish"
INFO = "13:10:45 edits@host ready."


JSON_LINE = '{"event": "ring_failed", "level": "warning"}'


def test_a_warning_that_comes_again_is_counted_and_told_of_once() -> None:
    repeats = Repeats()
    assert [repeats.comes("edits", line, 0.0) for line in (WARNING, LATER, OTHER, INFO, INFO)] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert repeats.comes("bulk", WARNING, 1.0), "another process's is its own"
    assert not repeats.comes("edits", WARNING, 2.0)
    assert repeats.over(AGAIN_WITHIN - 0.1) == []
    assert repeats.over(AGAIN_WITHIN) == [("edits", "[warning  ] ring_failed task=edits.apply (2 more times)")]
    assert repeats.over(AGAIN_WITHIN + 1) == []
    assert repeats.comes("edits", WARNING, AGAIN_WITHIN + 1), "it is shown anew"


def test_each_line_has_its_name_and_a_level_its_colour(capsys: pytest.CaptureFixture[str]) -> None:
    plain, coloured = Output(coloured=False), Output(coloured=True)
    plain("edits", WARNING)
    plain("edits", LATER)
    coloured("edits", WARNING)
    coloured("edits", INFO)
    assert capsys.readouterr().out.splitlines() == [
        f"edits     | {WARNING}",
        "\033[36medits     | \033[0m13:10:45 \033[33m[warning  ] \033[0mring_failed task=edits.apply",
        f"\033[36medits     | \033[0m{INFO}",
    ]


def test_what_came_again_is_told_before_the_next_line(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    output = Output(coloured=False, clock=lambda: now[0])
    for _ in range(4):
        output("edits", WARNING)
    now[0] = AGAIN_WITHIN
    output("api", INFO)
    assert capsys.readouterr().out.splitlines() == [
        f"edits     | {WARNING}",
        "edits     | [warning  ] ring_failed task=edits.apply (3 more times)",
        f"api       | {INFO}",
    ]


def test_lines_for_machines_stay_as_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(prefixed=False, coloured=True)
    for _ in range(2):
        output("edits", JSON_LINE)
    assert capsys.readouterr().out.splitlines() == [JSON_LINE, JSON_LINE]


def test_what_is_no_json_becomes_a_line_of_json_that_names_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Red before: `redraft api` wrote a bare "ended with SIGKILL" among lines of JSON."""
    output = Output(prefixed=False, coloured=True)
    output("api-2", "ended with SIGKILL; starting it again in 0.5 s")
    said = json.loads(capsys.readouterr().out)
    assert said.pop("timestamp").endswith("Z")
    assert said == {
        "level": "warning",
        "event": "process_said",
        "process": "api-2",
        "line": "ended with SIGKILL; starting it again in 0.5 s",
    }


def test_an_error_of_postgresql_that_comes_again_is_counted_with_all_that_it_says_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Red before: while a row was locked, three lines each 0.3 s filled the terminal."""

    def error(second: int, pid: int) -> list[str]:
        begins = f"2026-11-30 20:17:{second}.258 UTC [{pid}]"
        return [
            f"{begins} ERROR:  canceling statement due to lock timeout",
            f'{begins} CONTEXT:  while locking tuple ({second},11) in relation "posts"',
            f"{begins} STATEMENT:  SELECT id FROM posts",
            "\t  FOR NO KEY UPDATE",
        ]

    now = [0.0]
    output = Output(coloured=False, clock=lambda: now[0])
    other = "2026-11-30 20:17:40.258 UTC [8] LOG:  checkpoint starting"
    first = error(35, 7)
    for line in [*first, *error(36, 8), INFO, *error(37, 7), other, other, *error(38, 7)]:
        output("edits" if line is INFO else "postgres", line)
    now[0] = AGAIN_WITHIN
    output("postgres", other)
    assert [line.split(" | ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        *first,
        INFO,
        other,
        other,
        "ERROR:  canceling statement due to lock timeout (3 more times)",
        other,
    ]
