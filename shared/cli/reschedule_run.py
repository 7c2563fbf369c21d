"""What `redraft reschedule` does: preview, ask, run, watch, and the exit code (docs/bulk.md)."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import typer

from shared.cli import reschedule_csv
from shared.cli.places import stack_of
from shared.cli.reschedule_client import Client, Job, RefusedError, UnreachableError
from shared.cli.reschedule_csv import BadFileError
from shared.cli.reschedule_screen import Screen, Totals
from shared.domain.errors import InvalidRequest
from shared.domain.reschedule_requests import parse_request

SOME_FAILED, BAD_ARGUMENTS, SOME_SKIPPED, INTERRUPTED = 1, 2, 3, 130
COMMAND: Final = "redraft reschedule"
DATA_DIR: Final = Path(".redraft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command's arguments, as they came. `job`: what to do with a job that is there already, by its id."""

    filter: Mapping[str, Any]
    shift: str
    spread: Mapping[str, str]
    csv: Path | None
    skip_bad_lines: bool
    first_line: int
    job: Mapping[str, str]
    dry_run: bool
    yes: bool
    as_json: bool
    data_dir: Path

    @property
    def command(self) -> str:
        """How the command is to begin that goes on with this one's jobs: it must find the same API."""
        return COMMAND if self.data_dir == DATA_DIR else f"{COMMAND} --data-dir {shlex.quote(str(self.data_dir))}"


@dataclass(frozen=True, slots=True)
class Part:
    """What one job is asked to do; of a CSV, up to which of its lines."""

    body: dict[str, Any]
    last_line: int = 0


class ArgumentsError(Exception):
    """The message says what to give instead."""


def run(asked: Asked) -> int:
    """Do it; the exit code."""
    screen = Screen(as_json=asked.as_json, command=asked.command)
    going: Going | None = None
    try:
        body = _understood(asked)
        _check_somebody_can_answer(asked)
        going = Going(asked, Client(*_api(asked.data_dir)), screen)
        return going.go(body)
    except (ArgumentsError, BadFileError) as bad:
        screen.complain(f"{COMMAND}: {bad}")
        return BAD_ARGUMENTS
    except RefusedError as refused:
        screen.complain(f"{COMMAND}: {refused}")
        return SOME_FAILED if refused.status >= 500 or (going and going.sent) else BAD_ARGUMENTS
    except UnreachableError as away:
        screen.complain(f"{COMMAND}: {away}")
        return SOME_FAILED
    except (KeyboardInterrupt, typer.Abort):
        screen.complain("\nInterrupted." if going and going.at_work else "\nInterrupted. Nothing was changed.")
        if going:
            going.forget_plans()
        return INTERRUPTED
    finally:
        if going:
            going.leave()


def _understood(asked: Asked) -> dict[str, Any] | None:
    """The body of the one job that is asked for; None where a CSV or a job's id says what to do."""
    spread = {name: value for name, value in asked.spread.items() if value}
    ways = {"--shift": asked.shift, "--spread-from": spread, "--csv": asked.csv} | {
        f"--{name}": job_id for name, job_id in asked.job.items()
    }
    chosen = [name for name, value in ways.items() if value]
    if len(chosen) != 1:
        what = f"not {' and '.join(chosen)} together" if chosen else "none was given"
        raise ArgumentsError(f"give one of {', '.join(ways)}; {what}")
    meant = {name: value for name, value in asked.filter.items() if value}
    if not (asked.shift or spread):
        if meant:
            raise ArgumentsError(f"{chosen[0]} names the posts itself; leave out the options that choose posts")
        return None
    if not meant:
        raise ArgumentsError("say which posts: any of --account, --platform, --from, --to, --post, or --all")
    body = {"filter": meant, **({"shift": asked.shift} if asked.shift else {"spread": spread})}
    try:
        parse_request(body)
    except InvalidRequest as invalid:
        raise ArgumentsError("\n  ".join(dict.fromkeys(detail.message for detail in invalid.details))) from None
    return body


def _check_somebody_can_answer(asked: Asked) -> None:
    """A question into a pipe would wait for ever, or be answered by the next line of a CSV."""
    unasked = asked.yes or asked.dry_run or asked.job["watch"] or asked.job["cancel"]
    if not (unasked or sys.stdin.isatty()):
        raise ArgumentsError("no person can answer here; say --yes, or --dry-run for a preview")


def _api(data_dir: Path) -> tuple[str, str]:
    """Where the API is, and a key for it: the environment, else a local stack's own file. Raises ArgumentsError."""
    url, key = os.environ.get("REDRAFT_API_URL", ""), os.environ.get("REDRAFT_API_KEY", "")
    if not (url and key):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            stack = stack_of(data_dir)
            url, key = url or stack.get("apiUrl") or "", key or stack.get("apiKey") or ""
    if not url:
        raise ArgumentsError("set REDRAFT_API_URL and REDRAFT_API_KEY, or start a stack here with: redraft up --demo")
    if not key:
        raise ArgumentsError("set REDRAFT_API_KEY; make a key with: redraft keys create")
    return url, key


class Going:
    """One run of the command. `sent`: jobs that change posts, as they were started; `at_work`: one is under way."""

    def __init__(self, asked: Asked, client: Client, screen: Screen) -> None:
        self.asked, self.client, self.screen = asked, client, screen
        self.sent: list[Job] = []
        self._plan: Job | None = None
        self.at_work = False
        self._last_line = 0

    def go(self, body: dict[str, Any] | None) -> int:
        """The exit code."""
        if body is not None:
            return self._jobs(lambda: iter([Part(body)]))
        if self.asked.csv is not None:
            with reschedule_csv.opened(self.asked.csv) as file:
                return self._file(file)
        return self._job_there()

    def _file(self, file: IO[bytes]) -> int:
        bad = 0
        for line in reschedule_csv.judged(file):
            if line.item is None and line.number >= self.asked.first_line:
                bad += 1
                self.screen.complain(f"line {line.number} {line.fault}")
        if bad and not self.asked.skip_bad_lines:
            self.screen.complain(
                f"{bad:,} bad lines; nothing was sent. Mend them, or send the others with --skip-bad-lines."
            )
            return BAD_ARGUMENTS

        def parts() -> Iterator[Part]:
            for part in reschedule_csv.parts(reschedule_csv.judged(file), self.asked.first_line):
                yield Part({"items": [item for _, item in part]}, part[-1][0])

        return self._jobs(parts) or (SOME_SKIPPED if bad else 0)

    def _jobs(self, parts: Callable[[], Iterator[Part]]) -> int:
        """Preview, ask, run, sum up."""
        if self.asked.dry_run or not self.asked.yes:
            plans = self._all(parts(), dry_run=True)
            self.screen.preview(self.client, plans)
            if self.asked.dry_run or not plans.counts["applied"]:
                self._print(*plans.jobs)
                return plans.exit_code
            if not self._confirmed(f"Move {plans.counts['applied']:,} posts?"):
                return INTERRUPTED
        done = self._all(parts(), dry_run=False)
        self.screen.summary(self.client, done)
        return done.exit_code

    def _all(self, parts: Iterator[Part], *, dry_run: bool) -> Totals:
        totals = Totals()
        for part in parts:
            self.at_work = True
            job = self.client.start(part.body | {"dryRun": dry_run})
            if dry_run:
                self._plan = job
            else:
                self.sent.append(job)
                self._last_line = part.last_line
            job = self.screen.follow(self.client, job, "planned" if dry_run else "moved")
            totals.add(job)
            if not dry_run:
                self._print(job)
            if job["status"] != "done":
                break
        self.at_work = False
        return totals

    def _job_there(self) -> int:
        """Watch, cancel or revert a job that is there already."""
        what = self.asked.job
        job_id = what["watch"] or what["cancel"] or what["revert"]
        if what["revert"]:
            job = self.client.get(job_id)
            question = f"Move back what {job_id} moved ({job['applied']:,} posts)?"
            if not (self.asked.yes or self._confirmed(question)):
                return INTERRUPTED
        job = getattr(self.client, "get" if what["watch"] else "cancel" if what["cancel"] else "revert")(job_id)
        self.sent.append(job)
        self.at_work = True
        job = self.screen.follow(self.client, job, "decided")
        self.at_work = False
        totals = Totals()
        totals.add(job)
        self._print(job)
        self.screen.summary(self.client, totals)
        return 0 if what["cancel"] else totals.exit_code

    def _confirmed(self, question: str) -> bool:
        if typer.confirm(question, err=self.asked.as_json):
            return True
        self.screen.say("Nothing was changed.")
        return False

    def _print(self, *jobs: Job) -> None:
        if self.asked.as_json:
            for job in jobs:
                typer.echo(json.dumps(job))

    def forget_plans(self) -> None:
        """Interrupted: no client waits for this dry run any more, so it need not go on."""
        if self.at_work and self._plan is not None and not self.sent:
            with suppress(RefusedError, UnreachableError):
                self.client.cancel(self._plan["id"])

    def leave(self) -> None:
        """Where it was left before its end: say what goes on without us, and how to go on with the rest."""
        self.client.close()
        if not self.at_work:
            return
        if not self.sent:
            self.screen.complain("Nothing was changed.")
            return
        job_id, command = self.sent[-1]["id"], self.asked.command
        self.screen.complain(
            f"Job {job_id} goes on without this command.\n"
            f"  Watch it:   {command} --watch {job_id}\n"
            f"  Stop it:    {command} --cancel {job_id}\n"
            f"  Undo it:    {command} --revert {job_id}"
        )
        if self._last_line:
            file = shlex.quote(str(self.asked.csv)) + (" --skip-bad-lines" if self.asked.skip_bad_lines else "")
            self.screen.complain(
                f"  The lines after {self._last_line:,}: {command} --csv {file} --first-line {self._last_line + 1}"
            )
