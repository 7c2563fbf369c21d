"""One line a second of what a worker has done: its counts, and the first post of them."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shared import task_names
from shared.telemetry import console, work_lines
from shared.telemetry.work_lines import WorkLines
from tests.waiting import eventually


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> WorkLines:
    monkeypatch.setattr(work_lines, "PERIOD", 3600)
    monkeypatch.setattr(work_lines, "log", structlog.get_logger())
    return WorkLines(task_names.EDITS_APPLY)


def test_results_are_added_up(lines: WorkLines) -> None:
    lines.note((["post_a", "post_b"], None), {"applied": 3, "doorbells": 8})
    lines.note((["post_c"], None), {"applied": 1, "rejected": 1})
    lines.note((["post_d"], None), {"put_off": "OperationalError"})
    lines.note((["post_e"], None), {})
    with capture_logs() as written:
        lines.write()
        lines.note(([["post_f", 1]],), {"posted": 1})
        lines.write()
    assert written == [
        {
            "event": "work_done",
            "log_level": "info",
            "task": task_names.EDITS_APPLY,
            "applied": 4,
            "rejected": 1,
            "posts": "post_a +4",
        },
        {
            "event": "work_done",
            "log_level": "info",
            "task": task_names.EDITS_APPLY,
            "posted": 1,
            "posts": "post_f",
        },
    ]


@pytest.mark.parametrize("result", [None, {}, {"applied": 0}, {"chunk": "moved"}, {"doorbells": 3}, "done"])
def test_what_did_nothing_has_no_line(lines: WorkLines, result: Any) -> None:
    lines.note((["post_a"],), result)
    assert lines._timer is None


@pytest.mark.parametrize(
    ("args", "first"),
    [
        ((), None),
        (([],), None),
        ((["post_a", "post_b"], None), "post_a"),
        (([["post_a", 3]],), "post_a"),
        (("rsch_a",), "rsch_a"),
        ((["\x00"],), None),
        (([7],), None),
    ],
)
def test_the_first_id_that_a_message_names(args: tuple[Any, ...], first: str | None) -> None:
    assert work_lines.first_id(args) == first


def test_the_last_work_has_its_line_although_no_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_lines, "PERIOD", 0.05)
    monkeypatch.setattr(work_lines, "log", structlog.get_logger())
    with capture_logs() as written:
        work_lines.noted("task", lambda *_: {"moved": 2})("rsch_a")
        eventually(lambda: written, within=10)
    assert (written[0]["moved"], written[0]["posts"]) == (2, "rsch_a +1")


def test_a_line_for_people_is_short() -> None:
    render = console.renderer(coloured=False)
    stamp = "2026-11-30T13:10:45.956039Z"
    done: dict[str, Any] = {"timestamp": stamp, "level": "info", "event": "work_done", "process": "edits@host"}
    done |= {"task": "edits.apply", "applied": 3, "posts": "post_a +2"}
    assert str(render(None, "info", done)).rstrip() == "13:10:45 applied 3 (post_a +2)"
    other = {"timestamp": stamp, "level": "warning", "event": "ring_failed", "process": "api", "task": "edits.apply"}
    assert str(render(None, "warning", other)).rstrip() == "13:10:45 [warning  ] ring_failed task=edits.apply"
