"""A run that is killed with SIGKILL at any step is undone exactly, or goes on exactly, by the lines that it printed."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from shared.cli.api_client import Api
from tests.shared.cli.rescheduling import command, environment, redraft
from tests.stack import Running
from tests.waiting import eventually

# The command, which kills itself at one step: before its n-th POST, after that one's answer, at the first look at what
# that POST began, or at the summary. Two lines make a job.
_DYING: Final = """
import os, signal, sys
from shared.cli import main, reschedule_csv
from shared.cli.api_client import Api
from shared.cli.reschedule_screen import Screen

reschedule_csv.MOST_ITEMS = 2
number, when, answer, posts = int(sys.argv.pop(1)), sys.argv.pop(1), Api.answer, 0

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(api, method, path, **given):
    global posts
    posts += method == "POST"
    if (posts, method, when) == (number, "POST", "before"):
        die()
    found = answer(api, method, path, **given)
    if posts == number and (method, when) in {("POST", "after"), ("GET", "look")}:
        die()
    return found

Api.answer = dying
if when == "summary":
    Screen.summary = die
main.app()
"""

SIGKILLED: Final = -9


def killed(stack: Running, number: int, when: str, *arguments: str) -> str:
    """What the command says up to its death."""
    argv = [sys.executable, "-c", _DYING, str(number), when, *arguments]
    done = subprocess.run(
        argv, env=os.environ | environment(stack), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == SIGKILLED, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(stack: Running, account: str, folder: Path) -> tuple[list[str], str]:
    """Three posts, and the file that moves each of them and changes a caption."""
    posts = [
        stack.post(
            account_id=account, caption=f"old {number}", timezone="Asia/Tokyo", scheduled_time="2031-01-02T10:00Z"
        )
        for number in range(3)
    ]
    exported = redraft(stack, "posts", "export", "--csv", "--account", account).stdout
    path = folder / "plan.csv"
    path.write_text(exported.replace("2031-01-02T19:00", "2031-02-02 19:00").replace("old 1", "new 1"))
    return posts, str(path)


def state(stack: Running, posts: list[str]) -> list[tuple[str, str, str]]:
    rows = [stack.row("posts", post) for post in posts]
    return [(row.caption, row.timezone, f"{row.scheduled_time:%Y-%m-%d}") for row in rows]


BEFORE: Final = [(f"old {number}", "Asia/Tokyo", "2031-01-02") for number in range(3)]
AFTER: Final = [(f"{'new' if number == 1 else 'old'} {number}", "Asia/Tokyo", "2031-02-02") for number in range(3)]


def way(said: str, name: str) -> list[str]:
    """One of the two lines that a run prints before it sends anything."""
    found = re.search(rf"{name}: +redraft (.*)", said)
    assert found, said
    return found[1].split()


# POST 1 edits the captions, and each one after it starts a job.
@pytest.mark.parametrize(("number", "when"), [(1, "after"), (2, "before"), (3, "look"), (0, "summary")])
def test_a_killed_run_is_undone_by_the_line_that_it_printed(
    stack: Running, account: str, tmp_path: Path, number: int, when: str
) -> None:
    posts, path = planned(stack, account, tmp_path)
    undo = way(killed(stack, number, when, "reschedule", "--csv", path, "--yes"), "Undo all")
    result = redraft(stack, *undo, "--yes")
    assert result.exit_code == 0, result.output
    assert state(stack, posts) == BEFORE


@pytest.mark.parametrize(("number", "when"), [(1, "after"), (3, "after")])
def test_a_killed_run_goes_on_by_the_line_that_it_printed_and_does_nothing_twice(
    stack: Running, account: str, tmp_path: Path, number: int, when: str
) -> None:
    posts, path = planned(stack, account, tmp_path)
    said = killed(stack, number, when, "reschedule", "--csv", path, "--yes")
    result = redraft(stack, *way(said, "Go on"))
    assert result.exit_code == 0, result.output
    assert "3 of 3 posts moved." in result.stdout
    assert state(stack, posts) == AFTER
    assert [stack.row("posts", post).revision for post in posts] == [2, 3, 2]


# POST 1 and 2 undo a job each, 3 and 4 find out what became of the caption, and 5 sets it back.
@pytest.mark.parametrize(("number", "when"), [(2, "look"), (5, "after")])
def test_an_undo_that_is_killed_is_finished_by_the_same_line(
    stack: Running, account: str, tmp_path: Path, number: int, when: str
) -> None:
    posts, path = planned(stack, account, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.cli.reschedule_csv.MOST_ITEMS", 2)
        undo = way(command(stack, "--csv", path, "--yes").stderr, "Undo all")
    assert state(stack, posts) == AFTER
    killed(stack, number, when, *undo, "--yes")
    result = redraft(stack, *undo, "--yes")
    assert result.exit_code == 0, result.output
    assert state(stack, posts) == BEFORE


def test_an_undo_waits_for_captions_that_the_killed_run_sent_and_that_are_still_queued(
    stack: Running, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts, path = planned(stack, account, tmp_path)
    repeated = threading.Event()
    answer = Api.answer

    def watched(api: Api, method: str, place: str, **given: Any) -> Any:
        if place == "/v1/edits" and given.get("json", {}).get("edits"):
            repeated.set()
        return answer(api, method, place, **given)

    with ThreadPoolExecutor(2) as beside:
        with stack.engine.begin() as person:
            person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": posts})
            run = subprocess.Popen(
                [sys.executable, "-m", "shared.cli.main", "reschedule", "--csv", path, "--yes"],
                env=os.environ | environment(stack),
                stderr=subprocess.PIPE,
                text=True,
            )
            queued = "SELECT count(*) FROM edits WHERE post_id = ANY(:ids) AND status = 'queued'"
            eventually(lambda: stack.scalar(queued, ids=posts) == 1, within=30)
            run.kill()
            said = run.communicate()[1]
            monkeypatch.setattr(Api, "answer", watched)
            undone = beside.submit(redraft, stack, *way(said, "Undo all"), "--yes")
            assert repeated.wait(30)
        result = undone.result(60)
    assert result.exit_code == 0, result.output
    assert "1 caption set back." in result.stdout
    assert state(stack, posts) == BEFORE
