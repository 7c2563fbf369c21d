"""`redraft reschedule` against a running stack: as a script uses it, in a pipe, and at a terminal."""

import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from shared.cli import reschedule_csv
from shared.cli.reschedule import reschedule
from shared.cli.reschedule_csv import BadFileError, judged
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import LOGICAL_DATABASES, TEMPLATE
from tests.stack import Running, running
from tests.waiting import eventually

HEADER = "postId,scheduledTime,timezone"
numbers = count()
app = typer.Typer()
app.command()(reschedule)


@contextmanager
def started(postgres: PostgreSQL, valkey: Valkey, *queues: str) -> Iterator[Running]:
    number = next(numbers)
    url = postgres.create_database(f"cli_reschedule_{number}", template=TEMPLATE)
    with running(url, valkey.url(LOGICAL_DATABASES - 60 - number), *queues) as stack:
        yield stack


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    with started(postgres, valkey, "bulk") as stack:
        yield stack


@pytest.fixture(scope="module")
def idle(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """An API without a worker: a job waits for ever."""
    with started(postgres, valkey) as stack:
        yield stack


@pytest.fixture
def account(stack: Running) -> str:
    with stack.engine.begin() as tx:
        return factories.account(tx, f"acc_{next(numbers):03}")


def environment(stack: Running) -> dict[str, str]:
    assert stack.api is not None
    return {"REDRAFT_API_URL": stack.api.url, "REDRAFT_API_KEY": factories.SECRET}


def command(stack: Running, *arguments: str, stdin: str | None = None) -> Result:
    """In this process, without a terminal, as a script runs it."""
    return CliRunner().invoke(app, list(arguments), env=environment(stack), input=stdin)


def _controlled() -> None:
    """Make the terminal the one whose Ctrl-C interrupts this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, stack: Running, arguments: Sequence[str]) -> None:
        ours, theirs = pty.openpty()
        argv = [sys.executable, "-m", "shared.cli.main", "reschedule", *arguments]
        self._shown, self._ours = b"", ours
        given = {**os.environ, **environment(stack), "TERM": "xterm-256color", "COLUMNS": "120"}
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=given,
            start_new_session=True,
            preexec_fn=_controlled,  # noqa: PLW1509  -- an ioctl; nothing else runs in this test
        )
        os.close(theirs)
        os.set_blocking(ours, False)

    def shown(self) -> str:
        try:
            while more := os.read(self._ours, 65536):
                self._shown += more
        except (BlockingIOError, OSError):
            pass  # nothing more for now; EIO once the command has ended
        return self._shown.decode(errors="replace")

    def shows(self, words: str) -> None:
        eventually(lambda: words in self.shown(), within=30, because=f"the terminal shows {words!r}")

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        eventually(lambda: self.process.poll() is not None, within=30, because="the command ends")
        self.shown()
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def at_a_terminal(stack: Running, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(stack, arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def written(folder: Path, *lines: str) -> str:
    path = folder / "moves.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    return str(path)


def test_posts_of_an_account_are_moved_and_the_exit_code_says_all(stack: Running, account: str) -> None:
    ids = [stack.post(account_id=account) for _ in range(3)]
    result = command(stack, "--account", account, "--shift", "-PT10M", "--yes")
    assert result.exit_code == 0, result.output
    assert "3 of 3 posts moved." in result.stdout
    assert [stack.row("posts", post).revision for post in ids] == [2, 2, 2]
    undo = result.stdout.split("Undo it with: redraft reschedule ")[1].split()
    result = command(stack, *undo, "--yes")
    assert result.exit_code == 0, result.output
    assert [stack.row("posts", post).revision for post in ids] == [3, 3, 3]


def test_a_dry_run_previews_the_moves_and_every_reason_against_one_and_has_the_same_exit_codes(
    stack: Running, account: str
) -> None:
    ids = sorted(stack.post(account_id=account) for _ in range(12))
    result = command(stack, "--account", account, "--shift", "P1D", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "post" in result.stdout.splitlines()[0]
    assert "from (UTC)" in result.stdout.splitlines()[0]
    assert [line.split()[0] for line in result.stdout.splitlines()[1:11]] == ids[:10]
    assert "… and 2 more" in result.stdout
    assert "12 of 12 posts would be moved." in result.stdout
    posted = stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    named = ["--post", ids[0], "--post", posted]
    result = command(stack, *named, "--shift", "P1D", "--dry-run")
    assert result.exit_code == 3, result.output
    assert f"1 skipped: it has been posted already ({posted})" in result.stdout
    result = command(stack, *named, "--post", "post_nobody", "--shift", "P1D", "--dry-run")
    assert result.exit_code == 1
    assert "1 failed: there is no such post (post_nobody)" in result.stdout
    assert [stack.row("posts", post).revision for post in ids] == [1] * 12


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
        (["--csv", "moves.csv", "--account", "a"], "leave out the options that choose posts"),
        (["--csv", "/nowhere/moves.csv"], "cannot be read"),
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
    result = CliRunner().invoke(app, ["--all", "--shift", "P1D", "--yes"], env=wrong)
    assert (result.exit_code, "Invalid or missing API key" in result.stderr) == (2, True)
    monkeypatch.setattr("shared.cli.reschedule_client.PATIENCE", 0.3)
    gone = wrong | {"REDRAFT_API_URL": "http://127.0.0.1:1"}
    result = CliRunner().invoke(app, ["--all", "--shift", "P1D", "--yes"], env=gone)
    assert (result.exit_code, "cannot be reached" in result.stderr) == (1, True)
    nothing = ["--all", "--shift", "P1D", "--yes", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, nothing)
    assert (result.exit_code, "set REDRAFT_API_URL" in result.stderr) == (2, True)


def test_a_local_stack_is_found_by_its_own_file(stack: Running, account: str, tmp_path: Path) -> None:
    stack.post(account_id=account)
    where = environment(stack)
    found = {"apiUrl": where["REDRAFT_API_URL"], "apiKey": where["REDRAFT_API_KEY"]}
    (tmp_path / "stack.json").write_text(json.dumps(found))
    arguments = ["--account", account, "--shift", "P1D", "--dry-run", "--data-dir", str(tmp_path)]
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
    assert [line.split(":")[0].split(" ")[:2] for line in result.stderr.splitlines()[:4]] == [
        ["line", "3"], ["line", "4"], ["line", "6"], ["line", "7"],
    ]  # fmt: skip
    assert "line 3 names the same post as line 2" in result.stderr
    assert "4 bad lines; nothing was sent" in result.stderr
    assert stack.scalar("SELECT count(*) FROM reschedules") == jobs
    result = command(stack, "--csv", path, "--yes", "--skip-bad-lines")
    assert result.exit_code == 3, result.output
    assert "1 of 1 posts moved." in result.stdout
    assert stack.row("posts", post).revision == 2


def test_a_csv_of_any_length_goes_as_several_jobs_of_ten_thousand_and_goes_on_from_a_line(
    stack: Running, tmp_path: Path
) -> None:
    lines = [f"post_nobody{number:06},2031-03-01T09:00,Europe/Paris" for number in range(10_005)]
    path = written(tmp_path, *lines)
    result = command(stack, "--csv", path, "--yes", "--json")
    assert result.exit_code == 1, result.output
    assert [json.loads(line)["total"] for line in result.stdout.splitlines()] == [10_000, 5]
    assert "10,005 failed: there is no such post" in result.stderr
    result = command(stack, "--csv", path, "--yes", "--json", "--first-line", "10005")
    assert json.loads(result.stdout)["total"] == 2


def test_parts_stay_below_what_a_request_may_have(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("\n".join([HEADER, *(f"{number:0255},2031-03-01T09:00,Europe/Paris" for number in range(9_000))]))
    with reschedule_csv.opened(path) as file:
        parts = list(reschedule_csv.parts(judged(file), 2))
    assert sum(map(len, parts)) == 9_000
    assert len(parts) > 1
    assert all(len(json.dumps({"items": [item for _, item in part]})) < 2 * 1024 * 1024 for part in parts)
    assert [part[0][0] for part in parts[1:]] == [part[-1][0] + 1 for part in parts[:-1]]


def faults(data: bytes) -> dict[int, str]:
    return {line.number: line.fault for line in judged(io.BytesIO(data)) if line.item is None}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfpostId,scheduledTime,timezone\r\na,2031-03-01T09:00,Asia/Tokyo\r\n", {}),
        (b"postId,scheduledTime,timezone\n\xff,2031-03-01T09:00,Asia/Tokyo\n", {2: "surrogates"}),
        (b"postId,scheduledTime,timezone\na\0b,2031-03-01T09:00,Asia/Tokyo\nb,x,Asia/Tokyo\n", {2: "NUL", 3: "local"}),
        (b'postId,scheduledTime,timezone\n"a\nb",2031-03-01T09:00,Asia/Tokyo\nc,x,Asia/Tokyo\n', {4: "local"}),
        (b'postId,scheduledTime,timezone\n"a"b,2031-03-01T09:00,Asia/Tokyo\n', {2: "no CSV"}),
        (b'postId,scheduledTime,timezone\na,2031-03-01T09:00,Asia/Tokyo\n"b,never closed\n', {3: "no CSV"}),
        (b"postId,scheduledTime,timezone\n,,\n", {2: "255"}),
        (b"postId,scheduledTime,timezone\na,2031-03-01T09:00,Asia/Tokyo,x\n", {2: "4 fields instead of 3"}),
        (b"postId,scheduledTime,timezone\n" + b"x" * 200_000 + b",2031-03-01T09:00,Asia/Tokyo\n", {2: "no CSV"}),
    ],
)
def test_broken_lines_are_told_by_number_whatever_breaks_them(data: bytes, expected: dict[int, str]) -> None:
    found = faults(data)
    assert found.keys() == expected.keys()
    assert all(words in found[number] for number, words in expected.items()), found


@pytest.mark.parametrize("data", [b"", b"post,time,zone\n", b"scheduledTime,postId,timezone\n", b"\xff\xfe\0"])
def test_a_file_with_another_header_is_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(BadFileError, match="first line must be postId,scheduledTime,timezone"):
        list(judged(io.BytesIO(data)))


def test_standard_input_is_a_csv_too(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    result = command(stack, "--csv", "-", "--yes", stdin=f"{HEADER}\n{post},2031-03-01T09:00,Asia/Tokyo\n")
    assert result.exit_code == 0, result.output


def test_at_a_terminal_it_previews_asks_and_moves(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    with at_a_terminal(stack, "--account", account, "--shift", "P1D") as terminal:
        terminal.shows("1 of 1 posts would be moved.")
        terminal.shows("Move 1 posts? [y/N]")
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


def test_an_interrupted_job_is_named_goes_on_and_can_be_watched_or_stopped(idle: Running, tmp_path: Path) -> None:
    path = written(tmp_path, "post_a,2031-03-01T09:00,Asia/Tokyo", "post_b,2031-03-01T09:00,Asia/Tokyo")
    with at_a_terminal(idle, "--csv", path, "--yes") as terminal:
        eventually(lambda: idle.scalar("SELECT count(*) FROM reschedules") == 1, within=30)
        terminal.shows("moved")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.code() == 130
        shown = terminal.shown()
    job = idle.scalar("SELECT id FROM reschedules")
    assert f"Job {job} goes on without this command." in shown
    assert f"redraft reschedule --watch {job}" in shown
    assert "--first-line 4" in shown
    assert idle.scalar("SELECT status FROM reschedules") == "queued"
    result = command(idle, "--cancel", job)
    assert result.exit_code == 0, result.output
    assert f"{job} was canceled" in result.stdout
    result = command(idle, "--watch", job, "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (1, "canceled")


def test_what_an_interrupted_command_advises_goes_on_with_the_same_stack_and_the_same_bad_lines(
    idle: Running, tmp_path: Path
) -> None:
    path = written(tmp_path, "post_a,2031-03-01T09:00,Asia/Tokyo", "post_b", "post_c,2031-03-01T09:00,Asia/Tokyo")
    folder = tmp_path / "a stack"
    with at_a_terminal(idle, "--csv", path, "--yes", "--skip-bad-lines", "--data-dir", str(folder)) as terminal:
        terminal.shows("moved")
        terminal.types("\x03")
        assert terminal.code() == 130
        shown = terminal.shown()
    assert f"Stop it:    redraft reschedule --data-dir '{folder}' --cancel rsch_" in shown
    assert f"redraft reschedule --data-dir '{folder}' --csv {path} --skip-bad-lines --first-line 5" in shown


def test_a_filter_that_no_post_matches_is_said_to_match_none(stack: Running) -> None:
    for arguments in (["--yes"], ["--dry-run"]):
        result = command(stack, "--account", "acc_of_nobody", "--shift", "P1D", *arguments)
        assert (result.exit_code, result.stdout) == (0, "No waiting post matches; there is nothing to move.\n")


def test_in_a_pipe_there_are_no_colours_and_no_bar(stack: Running, account: str) -> None:
    stack.post(account_id=account)
    argv = [sys.executable, "-m", "shared.cli.main", "reschedule", "--account", account, "--shift", "P1D", "--yes"]
    given: dict[str, Any] = {**os.environ, **environment(stack), "TERM": "xterm-256color"}
    done = subprocess.run(argv, env=given, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.startswith("1 of 1 posts moved.\n")
