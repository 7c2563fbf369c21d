"""`redraft reschedule` against a running stack: as a script uses it, in a pipe, and at a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.cli.main import app
from tests import factories
from tests.shared.cli.rescheduling import HEADER, at_a_terminal, command, environment, redraft, written
from tests.stack import Running


def test_posts_of_an_account_are_moved_and_the_exit_code_says_all(stack: Running, account: str) -> None:
    ids = [stack.post(account_id=account) for _ in range(3)]
    result = command(stack, "--account", account, "--shift", "-PT10M", "--yes")
    assert result.exit_code == 0, result.output
    assert "3 of 3 posts moved." in result.stdout
    assert [stack.row("posts", post).revision for post in ids] == [2, 2, 2]
    undo = result.stdout.split("Undo it with: redraft ")[1].split()
    result = redraft(stack, *undo, "--yes")
    assert result.exit_code == 0, result.output
    assert [stack.row("posts", post).revision for post in ids] == [3, 3, 3]


def test_a_dry_run_changes_nothing_names_every_reason_and_has_the_same_exit_codes(stack: Running, account: str) -> None:
    ids = sorted(stack.post(account_id=account) for _ in range(2))
    result = command(stack, "--account", account, "--shift", "P1D", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2 of 2 posts would be moved." in result.stdout
    posted = stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    named = ["--post", ids[0], "--post", posted]
    result = command(stack, *named, "--shift", "P1D", "--dry-run")
    assert result.exit_code == 3, result.output
    assert f"1 skipped: it has been posted already ({posted})" in result.stdout
    result = command(stack, *named, "--post", "post_nobody", "--shift", "P1D", "--dry-run")
    assert result.exit_code == 1
    assert "1 failed: there is no such post (post_nobody)" in result.stdout
    assert [stack.row("posts", post).revision for post in ids] == [1] * 2


def test_filters_and_spreads_reach_the_api_as_they_are(stack: Running, account: str) -> None:
    early = stack.post(account_id=account, scheduled_time="2031-01-01T10:00Z")
    late = stack.post(account_id=account, scheduled_time="2031-01-02T10:00Z")
    result = command(
        stack,
        *("--account", account, "--platform", "tiktok", "--from", "2031-01-01T10:00Z", "--to", "2031-01-02T10:00Z"),
        *("--spread-from", "2031-02-01T09:00", "--spread-to", "2031-02-02T09:00", "--timezone", "Asia/Tokyo", "--yes"),
    )
    assert result.exit_code == 0, result.output
    assert stack.row("posts", early).scheduled_time.isoformat() == "2031-02-01T00:00:00+00:00"
    assert stack.row("posts", late).revision == 1


def test_a_gap_keeps_posts_of_an_account_apart_in_a_job_and_in_a_csv(
    stack: Running, account: str, tmp_path: Path
) -> None:
    stay = stack.post(account_id=account, scheduled_time="2031-03-01T08:10Z")
    first = stack.post(account_id=account, scheduled_time="2031-02-01T08:00Z")
    path = written(tmp_path, f"{first},2031-03-01T09:00,Europe/Paris")
    for moved in (["--csv", path], ["--post", first, "--shift", "P28D"]):
        result = command(stack, *moved, "--min-gap", "PT30M", "--yes")
        assert result.exit_code == 3, result.output
        assert "1 skipped: it would be too near to another post of its account" in result.stdout
    assert command(stack, "--csv", path, "--min-gap", "PT10M", "--yes").exit_code == 0
    assert [stack.row("posts", post).revision for post in (stay, first)] == [1, 2]


def test_json_is_the_ended_job_and_nothing_else_on_standard_output(stack: Running, account: str) -> None:
    post = stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    for more, dry_run in ((["--yes"], False), (["--dry-run"], True)):
        result = command(stack, "--post", post, "--shift", "P1D", "--json", *more)
        assert result.exit_code == 3
        job = json.loads(result.stdout)
        assert (job["status"], job["dryRun"], job["total"], job["skipped"]) == ("done", dry_run, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of --shift"),
        (["--shift", "P1D"], "say which posts"),
        (["--shift", "P1M", "--all"], "shift must be an ISO 8601 duration"),
        (["--shift", "P1D", "--all", "--platform", "tiktok"], "filter.all means every waiting post"),
        (["--shift", "P1D", "--from", "yesterday"], "filter.scheduledFrom must be an RFC 3339 time"),
        (["--shift", "P1D", "--csv", "moves.csv"], "not --shift and --csv together"),
        (["--csv", "moves.csv", "--min-gap", "half an hour"], "minGap must be"),
        (["--watch", "rsch_1", "--min-gap", "PT1H"], "--watch takes no --min-gap"),
        (["--csv", "moves.csv", "--account", "a"], "leave out the options that choose posts"),
        (["--csv", "/nowhere/moves.csv"], "cannot be read"),
        (["--account", "acc_of_nobody", "--shift", "P1D"], "there is no account acc_of_nobody; there are: acc_"),
        (["--resume", "run_of_nobody"], "there is no run run_of_nobody on this machine"),
        (["--shift", "P1D", "--all", "--results", "/nowhere/results.csv"], "--results /nowhere/results.csv cannot be"),
        (["--spread-from", "2031-02-01T09:00", "--all"], "spread.to is missing"),
        (["--watch", "rsch_nobody"], "Reschedule rsch_nobody not found"),
        (["--revert", "rsch_nobody"], "Reschedule rsch_nobody not found"),
    ],
)
def test_bad_arguments_end_with_2_and_say_what_to_give(stack: Running, arguments: list[str], words: str) -> None:
    jobs = stack.scalar("SELECT count(*) FROM reschedules")
    result = command(stack, *arguments, "--yes")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert stack.scalar("SELECT count(*) FROM reschedules") == jobs


def test_without_a_terminal_it_asks_nobody_and_changes_nothing(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    result = command(stack, "--account", account, "--shift", "P1D", stdin="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert stack.row("posts", post).revision == 1


def test_a_wrong_key_is_a_bad_argument_and_no_api_a_failure(
    stack: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = environment(stack) | {"REDRAFT_API_KEY": "sk_wrong"}
    result = CliRunner().invoke(app, ["reschedule", "--all", "--shift", "P1D", "--yes"], env=wrong)
    assert (result.exit_code, "Invalid or missing API key" in result.stderr) == (2, True)
    monkeypatch.setattr("shared.cli.api_client.PATIENCE", 0.3)
    gone = wrong | {"REDRAFT_API_URL": "http://127.0.0.1:1"}
    result = CliRunner().invoke(app, ["reschedule", "--all", "--shift", "P1D", "--yes"], env=gone)
    assert (result.exit_code, "cannot be reached" in result.stderr) == (1, True)
    nothing = ["reschedule", "--all", "--shift", "P1D", "--yes", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, nothing)
    assert (result.exit_code, "set REDRAFT_API_URL" in result.stderr) == (2, True)


def test_a_local_stack_is_found_by_its_own_file(stack: Running, account: str, tmp_path: Path) -> None:
    stack.post(account_id=account)
    where = environment(stack)
    found = {"apiUrl": where["REDRAFT_API_URL"], "apiKey": where["REDRAFT_API_KEY"]}
    (tmp_path / "stack.json").write_text(json.dumps(found))
    arguments = ["reschedule", "--account", account, "--shift", "P1D", "--dry-run", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_a_csv_moves_each_post_to_its_own_time(stack: Running, account: str, tmp_path: Path) -> None:
    first, second = stack.post(account_id=account), stack.post(account_id=account)
    path = written(tmp_path, f"{first},2031-03-01T09:00,Europe/Paris", f'"{second}",2031-03-31T02:30,Europe/Paris')
    result = command(stack, "--csv", path, "--yes")
    assert result.exit_code == 0, result.output
    assert stack.row("posts", first).scheduled_time.isoformat() == "2031-03-01T08:00:00+00:00"
    gap = written(tmp_path, f"{first},2031-03-30T02:30,Europe/Paris")
    result = command(stack, "--csv", gap, "--yes")
    assert result.exit_code == 3
    assert "1 skipped: the clocks go forward over the new time" in result.stdout


def test_every_bad_line_is_told_with_its_number_and_nothing_is_sent_unless_asked(
    stack: Running, account: str, tmp_path: Path
) -> None:
    post = stack.post(account_id=account)
    path = written(
        tmp_path,
        f"{post},2031-03-01T09:00,Europe/Paris",
        f"{post},2031-03-01T09:00,Europe/Paris",
        "post_b,tomorrow,Europe/Paris",
        "",
        "post_c,2031-03-01T09:00,Mars",
        "post_d,2031-03-01T09:00",
    )
    jobs = stack.scalar("SELECT count(*) FROM reschedules")
    result = command(stack, "--csv", path, "--yes")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()[:4]] == ["line 3", "line 4", "line 6", "line 7"]
    assert f'line 3: postId "{post}" stands in line 2 already' in result.stderr
    assert 'line 4: scheduledTime "tomorrow" is no local time; wanted: YYYY-MM-DD HH:MM' in result.stderr
    assert "4 bad lines; nothing was sent" in result.stderr
    assert stack.scalar("SELECT count(*) FROM reschedules") == jobs
    result = command(stack, "--csv", path, "--yes", "--skip-bad-lines")
    assert result.exit_code == 3, result.output
    assert "1 of 1 posts moved." in result.stdout
    assert stack.row("posts", post).revision == 2


def test_standard_input_is_a_csv_too(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    result = command(stack, "--csv", "-", "--yes", stdin=f"{HEADER}\n{post},2031-03-01T09:00,Asia/Tokyo\n")
    assert result.exit_code == 0, result.output


def test_at_a_terminal_it_previews_asks_and_moves(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    with at_a_terminal(stack, "--account", account, "--shift", "P1D") as terminal:
        terminal.shows("1 of 1 posts would be moved.")
        terminal.shows("Move 1 post? [y/N]")
        assert stack.row("posts", post).revision == 1
        terminal.types("y\n")
        terminal.shows("1 of 1 posts moved.")
        assert terminal.code() == 0
        assert "posts/s" in terminal.shown() or "━" in terminal.shown()
    assert stack.row("posts", post).revision == 2


@pytest.mark.parametrize("keys", ["n\n", "\n", "\x03", "\x04"])
def test_whoever_does_not_say_yes_changes_nothing(stack: Running, account: str, keys: str) -> None:
    post = stack.post(account_id=account)
    with at_a_terminal(stack, "--account", account, "--shift", "P1D") as terminal:
        terminal.shows("[y/N]")
        terminal.types(keys)
        assert terminal.code() == 130
        assert "Nothing was changed." in terminal.shown()
    assert stack.row("posts", post).revision == 1


def test_a_filter_that_no_post_matches_is_said_to_match_none(stack: Running) -> None:
    for arguments in (["--yes"], ["--dry-run"]):
        result = command(stack, "--from", "2039-01-01T00:00Z", "--shift", "P1D", *arguments)
        assert (result.exit_code, result.stdout) == (0, "No waiting post matches; there is nothing to move.\n")


def test_in_a_pipe_there_are_no_colours_and_no_bar(stack: Running, account: str) -> None:
    stack.post(account_id=account)
    argv = [sys.executable, "-m", "shared.cli.main", "reschedule", "--account", account, "--shift", "P1D", "--yes"]
    given: dict[str, Any] = {**os.environ, **environment(stack), "TERM": "xterm-256color"}
    done = subprocess.run(argv, env=given, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.startswith("1 of 1 posts moved.\n")
