"""What `redraft reschedule` does: preview, ask, run, watch, and the exit code (docs/bulk.md)."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

import typer

from shared.cli import (
    job_runs,
    reschedule_captions,
    reschedule_csv,
    reschedule_file,
    reschedule_journal,
    reschedule_undo,
)
from shared.cli import reschedule_results as results
from shared.cli.api_client import (
    BAD_ARGUMENTS,
    INTERRUPTED,
    SOME_FAILED,
    SOME_SKIPPED,
    Api,
    ArgumentsError,
    RefusedError,
    UnreachableError,
    place,
)
from shared.cli.reschedule_arguments import Asked, understood
from shared.cli.reschedule_captions import CaptionPlan
from shared.cli.reschedule_client import Job, Jobs
from shared.cli.reschedule_csv import BadFileError
from shared.cli.reschedule_journal import Run, UndoneError
from shared.cli.reschedule_preview import preview
from shared.cli.reschedule_screen import Screen, Totals
from shared.cli.waiting_posts import Posts, check_accounts
from shared.domain.plurals import counted

COMMAND: Final = "redraft reschedule"
UNDO: Final = "redraft jobs revert"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the jobs of a run are asked to do. `total`: posts, where that is known before; `zone_of`: the zone that a
    post is going to get, None for the one that it has.
    """

    bodies: Callable[[], Iterator[dict[str, Any]]]
    total: int | None = None
    zone_of: Callable[[str], str | None] = lambda _: None


def run(asked: Asked) -> int:
    """Do it; the exit code."""
    screen = Screen(as_json=asked.as_json)
    going: Going | None = None
    try:
        body = understood(asked)
        if asked.results is not None:
            results.check(asked.results)
        unasked = asked.dry_run or any(asked.job[name] for name in ("watch", "cancel", "resume"))
        reschedule_undo.check_answerable(yes=asked.yes or unasked)
        going = Going(asked, Jobs(Api(*place(asked.data_dir))), screen)
        return going.go(body)
    except (ArgumentsError, BadFileError) as bad:
        screen.complain(f"{COMMAND}: {bad}")
        return BAD_ARGUMENTS
    except RefusedError as refused:
        screen.complain(f"{COMMAND}: {refused}")
        return SOME_FAILED if refused.status >= 500 or (going and going.run) else BAD_ARGUMENTS
    except (UnreachableError, UndoneError) as ended:
        screen.complain(f"{COMMAND}: {ended}")
        return SOME_FAILED
    except (KeyboardInterrupt, typer.Abort):
        screen.complain("\nInterrupted." if going and going.at_work else "\nInterrupted. Nothing was changed.")
        if going:
            going.forget_plans()
        return INTERRUPTED
    finally:
        if going:
            going.leave()


class Going:
    """One run of the command. `run`: what changes posts, once it is asked for; `at_work`: a job is under way."""

    def __init__(self, asked: Asked, jobs: Jobs, screen: Screen) -> None:
        self.asked, self.jobs, self.screen = asked, jobs, screen
        self.run: Run | None = None
        self.captions = CaptionPlan()
        self.at_work = False
        self._plan: Job | None = None
        self._last: Job | None = None

    def go(self, body: dict[str, Any] | None) -> int:
        """The exit code."""
        if body is not None:
            # An unknown account would be an empty match, which looks like success.
            names = self._names()
            if names is not None:
                check_accounts(body["filter"].get("accountIds", ()), names)
            zone = body.get("spread", {}).get("timezone")
            return self._moved(Plan(lambda: iter([body]), zone_of=lambda _: zone))
        if self.asked.csv is not None:
            with reschedule_csv.opened(self.asked.csv) as file:
                return self._file(file)
        if self.asked.job["resume"]:
            return self._resumed(job_runs.found(self.asked.job["resume"], self.jobs))
        return self._job_there()

    def _file(self, file: IO[bytes]) -> int:
        first_line = self.asked.first_line
        checked = reschedule_file.check(file, first_line, Posts(self.jobs.api), self.screen)
        if not checked.lines:
            self.screen.say("The file has no lines to read: nothing to do.")
            return 0
        if checked.bad and not self.asked.skip_bad_lines:
            bad = f"{counted(checked.bad, 'bad line')}; nothing was sent"
            self.screen.complain(f"{bad}. Mend them, or send the others with --skip-bad-lines.")
            return BAD_ARGUMENTS
        if checked.captions:
            self.captions = reschedule_captions.plan(checked.captions, Posts(self.jobs.api))
        bodies = reschedule_file.bodies
        plan = Plan(
            lambda: (body | self.asked.gap for body in bodies(file, first_line)), len(checked.zones), checked.zones.get
        )
        return self._moved(plan) or (SOME_SKIPPED if checked.bad else 0)

    def _names(self) -> dict[str, str] | None:
        """The names of accounts by their ids; None where the key may not read them."""
        try:
            return Posts(self.jobs.api).accounts()
        except RefusedError as refused:
            if refused.status != 403:
                raise
            return None

    def _moved(self, plan: Plan) -> int:
        """Preview, ask, run, sum up."""
        if self.asked.dry_run or not self.asked.yes:
            planned = self._planned(plan)
            preview(self.screen, self.jobs, planned, self._names() or {}, plan.zone_of)
            if self.captions.anything:
                reschedule_captions.preview(self.screen, self.captions)
            ended = all(job["status"] == "done" for job in planned.jobs)
            if self.asked.dry_run or not (ended and (planned.moved or self.captions.edits)):
                self._write_results(planned)
                return self._ended(planned.exit_code, *planned.jobs)
            captions = f" and change {counted(len(self.captions.edits), 'caption')}" if self.captions.edits else ""
            if not self.screen.confirmed(f"Move {counted(planned.moved, 'post')}{captions}?"):
                return INTERRUPTED
        self.run = reschedule_journal.create(self.jobs.api.url, plan.bodies(), plan.total, self.captions.edits)
        return self._sent(self.run)

    def _ended(self, code: int, *jobs: Job) -> int:
        """Print the JSON of these jobs, and of captions where there are any. The exit code of all together."""
        self.screen.print_json(*jobs)
        if self.captions.anything:
            self.screen.print_json(reschedule_captions.as_json(self.captions))
        # 1 says more than 3.
        return min({code, self.captions.exit_code} - {0}, default=0)

    def _edit_captions(self, run: Run) -> None:
        """Edit the captions first: a move changes the revision that they were exported with."""
        edits = run.captions()
        if not edits:
            return
        with self.screen.working(f"changing {counted(len(edits), 'caption')}"):
            done = reschedule_captions.send(self.jobs.api, edits, run.captions_key, run.sending)
        done.conflicts += self.captions.conflicts
        done.refused |= self.captions.refused
        self.captions = done

    def _planned(self, plan: Plan) -> Totals:
        """The dry run."""
        totals = Totals()
        with self.screen.bar("planned", plan.total) as bar:
            for body in plan.bodies():
                self.at_work = True
                self._plan = self.jobs.start(body | {"dryRun": True})
                ended = bar.follow(self.jobs, self._plan)
                totals.add(ended)
                if ended["status"] != "done":
                    break
        self.at_work = False
        return totals

    def _resumed(self, run: Run) -> int:
        """Follow what was started, and send the rest."""
        if run.undone:
            raise ArgumentsError(f"{run.name} was undone; start a new run")
        if len(run.jobs) < run.parts and not run.keys_are_known:
            raise ArgumentsError(f"{run.name} is older than a day; start a new run for the posts that it did not send")
        self.run = run
        return self._sent(run)

    def _sent(self, run: Run) -> int:
        totals = Totals()
        known = set(run.jobs)
        reached = gone = 0
        # Said before anything is sent: what comes next may be the end of this command.
        self.screen.complain(f"Run {run.name}: {counted(run.parts, 'job')}. If this command is stopped:")
        self.screen.complain(self._ways(run))
        self.at_work = True
        self._edit_captions(run)
        with self.screen.bar("moved", run.total) as bar:
            for part in range(run.parts):
                self.at_work = True
                reached, job = part + 1, self._started(run, part)
                if job is None:
                    gone += 1
                    continue
                ended = bar.follow(self.jobs, job)
                totals.add(ended)
                self.screen.print_json(ended)
                run.check_not_undone()
                if ended["status"] != "done" and part not in known:
                    break
        self.at_work = False
        totals.missing = sum(len(run.body(part)["items"]) for part in range(reached, run.parts))
        if gone:
            self.screen.complain(job_runs.deleted(run, gone))
        if totals.jobs or not gone:
            self.screen.summary(self.jobs, totals)
        if self.captions.anything:
            self.screen.say(f"{counted(len(self.captions.edits), 'caption')} changed.")
            reschedule_captions.say_left(self.screen, self.captions)
        self._write_results(totals)
        if totals.moved or self.captions.edits:
            name = run.name if len(totals.jobs) > 1 or self.captions.edits else totals.jobs[0]["id"]
            self.screen.say(f"Undo it with: {self.asked.advised(UNDO)} {name}")
        return self._ended(totals.exit_code or (SOME_SKIPPED if gone else 0))

    def _write_results(self, totals: Totals) -> None:
        if self.asked.results is not None:
            results.write(self.asked.results, self.jobs, totals.jobs, self.captions)
            self.screen.say(f"What became of each post: {self.asked.results}")

    def _started(self, run: Run, part: int) -> Job | None:
        """None: it was started and decided its posts, and the API has it no more."""
        with run.sending():
            if part in run.jobs:
                self._last = self.jobs.find(run.jobs[part])
            else:
                run.begin(part)
                self._last = self.jobs.start(run.body(part), run.key(part))
                run.started(part, self._last["id"])
        return self._last

    def _job_there(self) -> int:
        """Watch, cancel or revert a job that is there already."""
        what = self.asked.job
        if what["revert"]:
            self.at_work = True
            undo = self.asked.advised(UNDO)
            code = reschedule_undo.undo(self.jobs, self.screen, [what["revert"]], undo, yes=self.asked.yes)
            self.at_work = False
            return code
        self._last = self.jobs.get(what["watch"]) if what["watch"] else self.jobs.cancel(what["cancel"])
        self.at_work = True
        with self.screen.bar("decided", None) as bar:
            ended = bar.follow(self.jobs, self._last)
        self.at_work = False
        totals = Totals()
        totals.add(ended)
        self.screen.print_json(ended)
        self.screen.summary(self.jobs, totals)
        return 0 if what["cancel"] else totals.exit_code

    def forget_plans(self) -> None:
        """Interrupted: no client waits for this dry run any more, so it need not go on."""
        if self.at_work and self._plan is not None and self.run is None:
            with suppress(RefusedError, UnreachableError):
                self.jobs.cancel(self._plan["id"])

    def leave(self) -> None:
        """Where it was left before its end: say what goes on without us, and how to go on with the rest."""
        self.jobs.api.close()
        if not self.at_work or self.asked.job["revert"] or (self.run and self.run.undone):
            return
        if self._last is None and self.run is None:
            self.screen.complain("Nothing was changed.")
            return
        if self._last is not None:
            self.screen.complain(f"Job {self._last['id']} goes on without this command.")
        if self.run is None and self._last is not None:
            self.screen.complain(f"  Watch it: {self.asked.advised(COMMAND)} --watch {self._last['id']}")
        if self.run is not None:
            self.screen.complain(self._ways(self.run))

    def _ways(self, run: Run) -> str:
        """What can be done with a run, whatever becomes of this command."""
        return (
            f"  Go on:    {self.asked.advised(COMMAND)} --resume {run.name}\n"
            f"  Undo all: {self.asked.advised(UNDO)} {run.name}"
        )
