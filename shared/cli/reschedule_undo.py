"""Undoing bulk jobs from the command line: one, or all jobs of a run, whatever became of the command that sent them."""

import sys
from collections.abc import Iterable

from shared.cli import reschedule_journal
from shared.cli.api_client import BAD_ARGUMENTS, INTERRUPTED, SOME_FAILED, ArgumentsError, RefusedError
from shared.cli.reschedule_client import LIVE, Job, Jobs
from shared.cli.reschedule_journal import PREFIX, Run
from shared.cli.reschedule_screen import Screen, Totals


def check_answerable(*, yes: bool) -> None:
    """Raises ArgumentsError where a question would wait for ever, or be answered by the next line of a CSV."""
    if not (yes or sys.stdin.isatty()):
        raise ArgumentsError("no person can answer here; say --yes, or --dry-run for a preview")


def undo(jobs: Jobs, screen: Screen, names: Iterable[str], command: str, *, yes: bool) -> int:
    """Stop what still runs of these jobs and runs, and move back what they moved. The exit code.

    Asked again it does nothing twice: a job's revert has an Idempotency-Key that follows from the job's id.
    Raises ArgumentsError, RefusedError, UnreachableError.
    """
    found = [jobs.get(job_id) for job_id in dict.fromkeys(_ids(jobs, screen, names))]
    if not found:
        screen.say("No job was started; there is nothing to undo.")
        return 0
    moved = sum(job["applied"] for job in found)
    live = sum(job["status"] in LIVE for job in found)
    running = f" ({live} still at work: stopped first)" if live else ""
    what = found[0]["id"] if len(found) == 1 else f"{len(found)} jobs"
    if not (yes or screen.confirmed(f"Move back what {what} moved{running}, {moved:,} posts?")):
        return INTERRUPTED
    return _revert(jobs, screen, [_stopped(jobs, job) for job in found], command)


def _revert(jobs: Jobs, screen: Screen, found: list[Job], command: str) -> int:
    totals = Totals()
    refused: list[RefusedError] = []
    meant = [job for job in found if job["applied"]]
    with screen.bar("moved back", sum(job["applied"] for job in meant) or None) as bar:
        for job in meant:
            try:
                inverse = jobs.revert(job["id"])
            except RefusedError as error:
                refused.append(error)
                screen.complain(f"{job['id']}: {error}")
                continue
            ended = bar.follow(jobs, inverse)
            totals.add(ended)
            screen.print_json(ended)
    if totals.jobs:
        screen.summary(jobs, totals, "moved back")
        if totals.counts["applied"]:
            screen.say(f"Undo that with: {command} {' '.join(job['id'] for job in totals.jobs)}")
    elif not refused:
        screen.say("These jobs moved nothing; there is nothing to undo.")
    if refused:
        return SOME_FAILED if totals.jobs else BAD_ARGUMENTS
    return totals.exit_code


def _stopped(jobs: Jobs, job: Job) -> Job:
    if job["status"] not in LIVE:
        return job
    try:
        return jobs.cancel(job["id"])
    except RefusedError as refused:
        if refused.status != 409:
            raise
        # It has just ended by itself.
        return jobs.get(job["id"])


def _ids(jobs: Jobs, screen: Screen, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        if not (name.startswith(PREFIX) or "/" in name):
            yield name
            continue
        run = reschedule_journal.find(name)
        check_place(run, jobs)
        for part in run.uncertain:
            _settle(run, part, jobs, screen)
        yield from run.jobs.values()


def _settle(run: Run, part: int, jobs: Jobs, screen: Screen) -> None:
    """Find the id of the job that was about to be started when the command died, if it was started."""
    if not run.keys_are_known:
        screen.complain("One more job of this run may have been started; see: redraft jobs list")
    elif jobs.knows(run.key(part)):
        run.started(part, jobs.start(run.body(part), run.key(part))["id"])


def check_place(run: Run, jobs: Jobs) -> None:
    """Raises ArgumentsError for a run of another API."""
    if run.api_url != jobs.api.url:
        raise ArgumentsError(f"this run went to {run.api_url}, and REDRAFT_API_URL or stack.json says {jobs.api.url}")
