"""A CSV of any length is one run: one summary, one line that undoes all of it, wherever the command was ended."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.cli import reschedule_captions, reschedule_journal, reschedule_run
from shared.cli.api_client import Api
from shared.cli.reschedule_captions import CaptionEdit
from shared.cli.reschedule_client import Jobs
from shared.cli.reschedule_journal import Run
from shared.cli.reschedule_screen import Bar
from tests import factories
from tests.shared.cli.rescheduling import Terminal, at_a_terminal, command, environment, redraft, written
from tests.stack import Running
from tests.waiting import eventually

AT = "2031-03-01T09:00"


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines in a job, where the product has 10,000: the same steps with few posts."""
    monkeypatch.setattr("shared.cli.reschedule_csv.MOST_ITEMS", 2)


def posts(stack: Running, account: str, number: int) -> list[str]:
    return [stack.post(account_id=account) for _ in range(number)]


def lines(ids: list[str]) -> list[str]:
    return [f"{post},{AT},Europe/Paris" for post in ids]


def revisions(stack: Running, ids: list[str]) -> list[int]:
    return [stack.row("posts", post).revision for post in ids]


@pytest.fixture
def jobs(stack: Running) -> Iterator[Jobs]:
    where = environment(stack)
    api = Api(where["REDRAFT_API_URL"], where["REDRAFT_API_KEY"])
    yield Jobs(api)
    api.close()


def planned(stack: Running, *parts: list[str]) -> Run:
    """A run as the command keeps it, before it sends anything."""
    items = [[{"postId": post, "scheduledTime": AT, "timezone": "Europe/Paris"} for post in part] for part in parts]
    url = environment(stack)["REDRAFT_API_URL"]
    return reschedule_journal.create(url, ({"items": part} for part in items), sum(len(part) for part in parts))


def test_a_csv_of_any_length_is_one_run_with_one_summary_and_one_undo(
    stack: Running, account: str, tmp_path: Path, short_parts: None
) -> None:
    ids = posts(stack, account, 5)
    path, results = written(tmp_path, *lines(ids)), tmp_path / "results.csv"
    result = command(stack, "--csv", path, "--yes", "--results", str(results))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("5 of 5 posts moved.\n")
    assert revisions(stack, ids) == [2] * 5
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["postId"], row["outcome"], row["after"]) for row in rows] == [
        (post, "applied", "2031-03-01T08:00:00Z") for post in ids
    ]
    undo = re.findall(r"Undo it with: redraft (jobs revert run_\w+)", result.stdout)
    assert len(undo) == 1
    assert f"Undo all: redraft {undo[0]}" in result.stderr
    name = undo[0].split()[-1]
    shown = redraft(stack, "jobs", "show", name).stdout.splitlines()
    assert shown[0] == f"{name}: done"
    assert shown[2] == "Jobs: 3; started: 3"
    assert [line.split(": ")[1] for line in shown[3:6]] == [
        "done, moved 2 of 2", "done, moved 2 of 2", "done, moved 1 of 1"
    ]  # fmt: skip
    assert shown[6:] == ["Posts: 5; decided: 5; moved: 5", f"Undo it:  redraft {undo[0]}"]
    as_json = json.loads(redraft(stack, "jobs", "show", name, "--json").stdout)
    assert (as_json["applied"], as_json["status"], len(as_json["jobs"])) == (5, "done", 3)
    # The list has one row of the run, also where its older jobs are beyond the limit.
    listed = redraft(stack, "jobs", "list", "--limit", "1")
    assert re.findall(r"(?:run|rsch)_\w+", listed.stdout) == [name]
    assert [job["id"] for job in json.loads(redraft(stack, "jobs", "list", "--json", "--limit", "3").stdout)] == [
        job["id"] for job in reversed(as_json["jobs"])
    ]
    result = redraft(stack, *undo[0].split(), "--yes")
    assert result.exit_code == 0, result.output
    assert "5 of 5 posts moved back." in result.stdout
    assert revisions(stack, ids) == [3] * 5
    # It does not go on, and entered again the undo moves nothing: the answer is that of the first time.
    assert redraft(stack, "jobs", "show", name).stdout.startswith(f"{name}: undone\n")
    result = command(stack, "--resume", name)
    assert (result.exit_code, "was undone; start a new run" in result.stderr) == (2, True)
    result = redraft(stack, *undo[0].split(), "--yes")
    assert result.exit_code == 0, result.output
    assert revisions(stack, ids) == [3] * 5


def test_what_undid_a_run_can_be_undone(stack: Running, account: str, tmp_path: Path, short_parts: None) -> None:
    ids = posts(stack, account, 3)
    result = command(stack, "--csv", written(tmp_path, *lines(ids)), "--yes")
    undo = re.findall(r"Undo it with: redraft (jobs revert run_\w+)", result.stdout)[0]
    result = redraft(stack, *undo.split(), "--yes")
    again = re.findall(r"Undo that with: redraft (jobs revert rsch_\w+ rsch_\w+)", result.stdout)[0]
    result = redraft(stack, *again.split(), "--yes")
    assert result.exit_code == 0, result.output
    assert {stack.row("posts", post).scheduled_time.isoformat() for post in ids} == {"2031-03-01T08:00:00+00:00"}


def test_ten_thousand_lines_make_a_job(stack: Running, tmp_path: Path) -> None:
    path = written(tmp_path, *lines([f"post_nobody{number:06}" for number in range(10_005)]))
    result = command(stack, "--csv", path, "--yes", "--json")
    assert result.exit_code == 1, result.output
    assert [json.loads(line)["total"] for line in result.stdout.splitlines()] == [10_000, 5]
    assert "10,005 failed: there is no such post" in result.stderr
    result = command(stack, "--csv", path, "--yes", "--json", "--first-line", "10005")
    assert json.loads(result.stdout)["total"] == 2


@pytest.mark.parametrize("sent", [True, False])
def test_a_run_that_died_while_it_sent_is_undone_whether_its_request_arrived_or_not(
    stack: Running, jobs: Jobs, account: str, sent: bool
) -> None:
    ids = posts(stack, account, 3)
    run = planned(stack, ids[:2], ids[2:])
    run.begin(0)
    if sent:
        # The request arrives; the command dies before it learns the job's id.
        list(jobs.watch(jobs.start(run.body(0), run.key(0))))
    made = stack.scalar("SELECT count(*) FROM reschedules")
    result = redraft(stack, "jobs", "revert", run.name, "--yes")
    assert result.exit_code == 0, result.output
    assert ("2 of 2 posts moved back." if sent else "No job was started") in result.stdout
    assert revisions(stack, ids) == ([3, 3, 1] if sent else [1, 1, 1])
    assert stack.scalar("SELECT count(*) FROM reschedules") == made + sent


@pytest.mark.parametrize("told", [True, False])
def test_a_run_that_died_goes_on_and_sends_nothing_twice(stack: Running, jobs: Jobs, account: str, told: bool) -> None:
    ids = posts(stack, account, 3)
    run = planned(stack, ids[:2], ids[2:])
    run.begin(0)
    first = jobs.start(run.body(0), run.key(0))
    if told:
        run.started(0, first["id"])
    list(jobs.watch(first))
    shown = redraft(stack, "jobs", "show", run.name).stdout
    assert shown.startswith(f"{run.name}: stopped\n")
    assert f"Go on:    redraft reschedule --resume {run.name}\n" in shown
    result = command(stack, "--resume", run.name)
    assert result.exit_code == 0, result.output
    assert "3 of 3 posts moved." in result.stdout
    assert revisions(stack, ids) == [2, 2, 2]
    again = command(stack, "--resume", run.name)
    assert (again.exit_code, "3 of 3 posts moved." in again.stdout) == (0, True)
    assert revisions(stack, ids) == [2, 2, 2]


def test_a_command_that_is_killed_can_be_undone_and_goes_on(idle: Running, tmp_path: Path) -> None:
    path = written(tmp_path, *lines([f"post_nobody{number:06}" for number in range(10_001)]))
    made = idle.scalar("SELECT count(*) FROM reschedules")
    with at_a_terminal(idle, "--csv", path, "--yes") as terminal:
        run = started_one_job(terminal, idle)
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    assert idle.scalar("SELECT count(*) FROM reschedules") == made + 1
    shown = redraft(idle, "jobs", "show", run.name).stdout
    assert shown.startswith(f"{run.name}: running\n")
    assert f"Jobs: 2; started: 1\n  {job(idle)}: queued, moved 0 of 0\nPosts: 10,001; decided: 0; moved: 0\n" in shown
    result = redraft(idle, "jobs", "revert", run.name, "--yes")
    assert "nothing to undo" in result.stdout, result.output
    assert idle.row("reschedules", job(idle)).status == "canceled"


def started_one_job(terminal: Terminal, stack: Running) -> Run:
    """The run of this command, once the command knows its first job."""
    terminal.shows("Undo all: ")
    run = reschedule_journal.find(re.findall(r"jobs revert .*(run_\w+)", terminal.shown())[0])
    noted = run.folder / "jobs"
    eventually(lambda: noted.exists() and noted.read_text() == f"0\n0 {job(stack)}\n", within=30)
    return run


def job(stack: Running) -> str:
    return str(stack.scalar("SELECT id FROM reschedules ORDER BY created_at DESC LIMIT 1"))


def test_an_interrupted_job_is_named_goes_on_and_can_be_watched_or_stopped(idle: Running, tmp_path: Path) -> None:
    path = written(tmp_path, *lines(["post_a", "post_b"]))
    with at_a_terminal(idle, "--csv", path, "--yes", "--data-dir", str(tmp_path / "a stack")) as terminal:
        started_one_job(terminal, idle)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.code() == 130
        shown = terminal.shown()
    assert f"Job {job(idle)} goes on without this command." in shown
    (name,) = set(re.findall(r"Go on: +redraft reschedule --data-dir '.*a stack' --resume (run_\w+)", shown))
    assert f"redraft jobs revert --data-dir '{tmp_path / 'a stack'}' {name}" in shown
    assert idle.row("reschedules", job(idle)).status == "queued"
    result = command(idle, "--cancel", job(idle))
    assert result.exit_code == 0, result.output
    assert f"{job(idle)} was canceled" in result.stdout
    result = command(idle, "--watch", job(idle), "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (1, "canceled")


UNDO = "from shared.cli import main, reschedule_captions; reschedule_captions.BATCH = 1; main.app()"


@pytest.mark.parametrize(
    ("place", "jobs_of_it"),
    [
        # Behind the line "Undo all"; in the request of a batch of captions; in that of a job; while a job is followed.
        ((reschedule_run.Going, "_edit_captions"), 0),
        ((reschedule_captions, "_together"), 0),
        ((Jobs, "start"), 1),
        ((Bar, "follow"), 1),
    ],
)
def test_a_command_whose_run_is_undone_meanwhile_ends_and_changes_nothing_more(
    stack: Running, account: str, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], jobs_of_it: int
) -> None:
    monkeypatch.setattr(reschedule_captions, "BATCH", 1)
    monkeypatch.setattr("shared.cli.reschedule_csv.MOST_ITEMS", 2)
    ids = [stack.post(account_id=account, caption="old words") for _ in range(3)]
    text = redraft(stack, "posts", "export", "--csv", "--account", account).stdout.replace("old words", "new words")
    text = re.sub(r",20[0-9T:-]+,[A-Za-z_/]*,", f",{AT},Europe/Paris,", text)
    undoing: list[subprocess.Popen[bytes]] = []
    step = getattr(*place)

    def stepped(*given: Any, **more: Any) -> Any:
        if not undoing:
            [run] = reschedule_journal.kept(environment(stack)["REDRAFT_API_URL"])
            argv = [sys.executable, "-c", UNDO, "jobs", "revert", run.name, "--yes"]
            undoing.append(subprocess.Popen(argv, env=os.environ | environment(stack), stdout=subprocess.DEVNULL))
            eventually(lambda: run.undone, within=30)
            if place[1] in ("_together", "start"):
                with pytest.raises(BlockingIOError), (run.folder / "lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                assert undoing[0].poll() is None
        return step(*given, **more)

    before = [stack.row("posts", post).scheduled_time for post in ids]
    made = stack.scalar("SELECT count(*) FROM reschedules WHERE reverts IS NULL")
    monkeypatch.setattr(*place, stepped)
    result = command(stack, "--csv", "-", "--yes", stdin=text)
    assert undoing[0].wait(30) in (0, 3)
    assert (result.exit_code, "was undone by another command" in result.stderr) == (1, True), result.output
    assert [stack.row("posts", post).caption for post in ids] == ["old words"] * 3
    assert [stack.row("posts", post).scheduled_time for post in ids] == before
    assert stack.scalar("SELECT count(*) FROM reschedules WHERE reverts IS NULL") == made + jobs_of_it


def test_an_undo_does_not_wait_for_ever_for_a_command_that_hangs(
    stack: Running, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(stack, posts(stack, account, 1))
    monkeypatch.setattr(reschedule_journal, "PATIENCE", 0)
    with run.sending():
        result = redraft(stack, "jobs", "revert", run.name, "--yes")
    assert (result.exit_code, "end that command" in result.stderr) == (2, True), result.output
    # The command that hangs sends nothing more.
    with pytest.raises(reschedule_journal.UndoneError), run.sending():
        pass
    assert redraft(stack, "jobs", "revert", run.name, "--yes").exit_code == 0


def test_a_job_of_a_run_that_was_deleted_is_left_out_and_the_others_are_undone(
    stack: Running, jobs: Jobs, account: str
) -> None:
    ids = posts(stack, account, 2)
    run = planned(stack, ids[:1], ids[1:])
    run.started(0, "rsch_deleted")
    run.started(1, jobs.start(run.body(1), run.key(1))["id"])
    list(jobs.watch(jobs.get(run.jobs[1])))
    words = f"{run.name}: 1 job of it was deleted, and left out here.\n"
    for arguments in (["list", "--limit", "1"], ["show", run.name], ["revert", run.name, "--yes"]):
        result = redraft(stack, "jobs", *arguments)
        assert result.exit_code == (3 if arguments[0] == "revert" else 0), result.output
        assert result.stderr.count(words) == 1
        assert run.name in result.output
    assert revisions(stack, ids) == [1, 3]


def test_a_run_goes_on_where_a_job_of_it_was_deleted(stack: Running, account: str) -> None:
    ids = posts(stack, account, 2)
    run = planned(stack, ids[:1], ids[1:])
    run.started(0, "rsch_deleted")
    result = command(stack, "--resume", run.name)
    assert (result.exit_code, result.stderr.count(f"{run.name}: 1 job of it was deleted")) == (3, 1), result.output
    assert "1 of 1 posts moved." in result.stdout
    assert revisions(stack, ids) == [1, 2]
    # Nor is there anything left to send, or to say about it, where all are.
    run.started(1, "rsch_deleted_too")
    result = command(stack, "--resume", run.name)
    assert (result.exit_code, result.stdout) == (3, ""), result.output
    assert "2 jobs of it were deleted" in result.stderr


@pytest.mark.parametrize("captions", [(), [CaptionEdit("post_a", 1, "new", "old")]])
def test_a_run_that_was_undone_before_any_job_began_has_ended_and_needs_no_undo(
    stack: Running, captions: list[CaptionEdit]
) -> None:
    run = reschedule_journal.create(environment(stack)["REDRAFT_API_URL"], [{"items": []}], 0, captions)
    assert redraft(stack, "jobs", "revert", run.name, "--yes").exit_code == 0
    shown = redraft(stack, "jobs", "show", run.name).stdout
    assert shown.startswith(f"{run.name}: undone\n")
    assert ", ended after " in shown
    assert "Undo it" not in shown


def test_a_run_of_another_api_or_too_old_a_run_is_not_sent(stack: Running, account: str) -> None:
    run = planned(stack, posts(stack, account, 1))
    about = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(about | {"createdAt": "2020-01-01T00:00:00+00:00"}))
    result = command(stack, "--resume", run.name)
    assert (result.exit_code, "is older than a day" in result.stderr) == (2, True)
    (run.folder / "run.json").write_text(json.dumps(about | {"apiUrl": "http://127.0.0.1:1"}))
    result = command(stack, "--resume", run.name)
    assert (result.exit_code, "this run went to http://127.0.0.1:1" in result.stderr) == (2, True)


def test_a_run_is_kept_elsewhere_where_the_usual_folder_cannot_be_written(
    stack: Running, account: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    run = planned(stack, posts(stack, account, 1))
    try:
        assert os.sep in run.name
        result = command(stack, "--resume", run.name)
        assert result.exit_code == 0, result.output
    finally:
        shutil.rmtree(run.folder.parent)


def test_runs_are_forgotten_after_a_month(stack: Running, account: str) -> None:
    old, new = planned(stack, posts(stack, account, 1)), planned(stack, posts(stack, account, 1))
    a_month = reschedule_journal.KEPT.total_seconds()
    os.utime(old.folder, (0, new.folder.stat().st_mtime - a_month - 1))
    planned(stack, posts(stack, account, 1))
    assert (old.folder.exists(), new.folder.exists()) == (False, True)


def test_a_job_that_cannot_be_undone_is_told_and_the_others_are_undone(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    moved = json.loads(command(stack, "--post", post, "--shift", "P1D", "--yes", "--json").stdout)["id"]
    dry = json.loads(command(stack, "--post", post, "--shift", "P1D", "--dry-run", "--json").stdout)["id"]
    result = redraft(stack, "jobs", "revert", dry, "--yes")
    assert (result.exit_code, "A dry run moved nothing" in result.stderr) == (2, True)
    result = redraft(stack, "jobs", "revert", dry, moved, "--yes")
    assert (result.exit_code, "A dry run moved nothing" in result.stderr) == (1, True)
    assert stack.row("posts", post).revision == 3
    result = redraft(stack, "jobs", "revert", moved, "rsch_nobody", "--yes")
    assert (result.exit_code, "rsch_nobody not found" in result.stderr) == (2, True)
    result = redraft(stack, "jobs", "revert", moved, stdin="y\n")
    assert (result.exit_code, "--yes" in result.stderr) == (2, True)


def test_a_dry_run_writes_its_results_too(stack: Running, account: str, tmp_path: Path) -> None:
    posted = stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    results = tmp_path / "results.csv"
    path = written(tmp_path, *lines([posted, "-nobody"]))
    result = command(stack, "--csv", path, "--dry-run", "--results", str(results))
    assert result.exit_code == 1, result.output
    with results.open(newline="") as file:
        rows = {row["postId"]: (row["outcome"], row["reason"]) for row in csv.DictReader(file)}
    assert rows[posted] == ("skipped", "already_posted")
    # Spreadsheets would run a cell that begins so.
    assert rows["'-nobody"] == ("failed", "not_found")
