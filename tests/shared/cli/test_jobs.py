"""`redraft jobs`: lists, one job, stop and undo."""

import json
import re

import pytest

from tests import factories
from tests.shared.cli.rescheduling import Terminal, command, redraft
from tests.stack import Running


def moved(stack: Running, account: str, *more: str) -> str:
    stack.post(account_id=account)
    result = command(stack, "--account", account, "--shift", "P1D", "--json", *(more or ["--yes"]))
    return str(json.loads(result.stdout)["id"])


def queued(idle: Running) -> str:
    answer = idle.http.post("/v1/reschedules", json={"filter": {"all": True}, "shift": "P1D"})
    return str(answer.json()["id"])


def test_the_list_is_newest_first_and_fits_80_columns_with_whole_ids(stack: Running, account: str) -> None:
    older, newer = moved(stack, account), moved(stack, account, "--dry-run")
    result = redraft(stack, "jobs", "list", "--json", "--limit", "2")
    assert [job["id"] for job in json.loads(result.stdout)] == [newer, older]
    assert "Only the first 2 are shown" in result.stderr or "--limit" not in result.stderr
    terminal = Terminal(stack, ["jobs", "list"], COLUMNS="80", LINES="40")
    try:
        assert terminal.code() == 0
        lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown()).splitlines()
    finally:
        terminal.close()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.strip().startswith("rsch_")][:2] == [newer, older]
    [heading] = [line for line in lines if "status" in line]
    assert heading.split() == ["job", "status", "posts", "moved", "skipped", "failed"]
    # What a dry run would move is not said to have moved, in the narrowest terminal.
    (moves,) = [line.split()[2:] for line in lines if line.split()[:1] == [newer]]
    assert moves == ["2", "2", "dry", "0", "0"]


def test_a_job_is_shown_with_its_reasons_and_what_can_be_done(stack: Running, account: str) -> None:
    posted = stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    post = stack.post(account_id=account)
    arguments = ["--post", posted, "--post", post, "--shift", "P1D", "--yes", "--json"]
    job = json.loads(command(stack, *arguments).stdout)["id"]
    result = redraft(stack, "jobs", "show", job)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"{job}: done"
    assert "Posts: 2; decided: 2; moved: 1" in result.stdout
    assert f"1 skipped: it has been posted already ({posted})" in result.stdout
    assert f"Undo it:  redraft jobs revert {job}" in result.stdout
    assert json.loads(redraft(stack, "jobs", "show", job, "--json").stdout)["skipped"] == 1
    there = json.loads(command(stack, "--post", post, "--shift", "PT0M", "--yes", "--json").stdout)["id"]
    shown = redraft(stack, "jobs", "show", there).stdout
    assert "moved: 0\nHad their times already: 1\n" in shown
    assert "Undo it" not in shown
    dry = moved(stack, account, "--dry-run")
    shown = redraft(stack, "jobs", "show", dry).stdout
    assert "would be moved: 2" in shown
    assert "Undo it" not in shown


def test_jobs_are_canceled_by_their_ids_and_one_that_has_ended_is_told(idle: Running) -> None:
    first, second = queued(idle), queued(idle)
    assert f"Stop it:  redraft jobs cancel {first}" in redraft(idle, "jobs", "show", first).stdout
    result = redraft(idle, "jobs", "cancel", first)
    assert (result.exit_code, result.stdout) == (0, f"{first} was canceled; 0 posts were moved before that\n")
    result = redraft(idle, "jobs", "cancel", first, second, "--json")
    assert (result.exit_code, "The job is canceled already" in result.stderr) == (1, True)
    assert [job["id"] for job in json.loads(result.stdout)] == [second]
    result = redraft(idle, "jobs", "cancel", "rsch_nobody")
    assert (result.exit_code, "not found" in result.stderr) == (2, True)


def test_a_live_job_is_stopped_before_it_is_undone(idle: Running) -> None:
    job = queued(idle)
    result = redraft(idle, "jobs", "revert", job, "--yes")
    assert (result.exit_code, "nothing to undo" in result.stdout) == (0, True), result.output
    assert idle.row("reschedules", job).status == "canceled"


@pytest.mark.parametrize("arguments", [["show", "rsch_nobody"], ["revert", "rsch_nobody", "--yes"], ["list"]])
def test_a_job_that_is_not_there_or_a_wrong_key_is_a_bad_argument(
    stack: Running, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments == ["list"]:
        monkeypatch.setattr(factories, "SECRET", "sk_wrong")
    result = redraft(stack, "jobs", *arguments)
    assert result.exit_code == 2, result.output
    assert "not found" in result.stderr or "Invalid or missing API key" in result.stderr
