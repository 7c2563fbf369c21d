"""Undoing bulk jobs from the command line: one, or all jobs of a run, whatever became of the command that sent them."""

import sys
from collections.abc import Iterable

from shared.cli import job_runs, reschedule_captions
from shared.cli.api_client import BAD_ARGUMENTS, INTERRUPTED, SOME_FAILED, SOME_SKIPPED, ArgumentsError, RefusedError
from shared.cli.reschedule_client import LIVE, PATH, Job, Jobs
from shared.cli.reschedule_journal import Run
from shared.cli.reschedule_screen import BACK, Screen, Totals, moved
from shared.domain.plurals import counted


def check_answerable(*, yes: bool) -> None:
    """Raises ArgumentsError where a question would wait for ever, or be answered by the next line of a CSV."""
    if not (yes or sys.stdin.isatty()):
        raise ArgumentsError("no person can answer here; say --yes, or --dry-run for a preview")


def undo(jobs: Jobs, screen: Screen, names: Iterable[str], command: str, *, yes: bool) -> int:
    """Stop what still runs of these jobs and runs, and move back what they moved. The exit code.

    Asked again it does nothing twice: a job's revert has an Idempotency-Key that follows from the job's id.
    Raises ArgumentsError, RefusedError, UnreachableError.
    """
    named = [job_runs.found(name, jobs) if job_runs.is_run(name) else name for name in names]
    runs = [one for one in named if isinstance(one, Run)]
    edited = [run for run in runs if run.has_captions]
    left_out: list[str] = []
    found = _jobs(named, jobs, left_out)
    posts = sum(moved(job) for job in found)
    live = sum(job["status"] in LIVE for job in found)
    running = f" ({live} still at work: stopped first)" if live else ""
    what = found[0]["id"] if len(found) == 1 else f"{len(found)} jobs"
    captions = ", and give posts their old captions back" if edited else ""
    question = f"Move back what {what} moved{running}, {counted(posts, 'post')}{captions}?"
    if (found or edited) and not (yes or screen.confirmed(question)):
        return INTERRUPTED
    if runs:
        with screen.working("waiting for the request that another command sends"):
            for run in runs:
                run.undo()
        # A command that is alive may have started more of them up to this moment.
        found = _jobs(named, jobs, left_out)
        if any(run.uncertain and not run.keys_are_known for run in runs):
            screen.complain("One more job of this run may have been started; see: redraft jobs list")
    for words in left_out:
        screen.complain(words)
    if not (found or edited):
        screen.say(f"{'No job is left' if left_out else 'No job was started'}; there is nothing to undo.")
    code = _revert(jobs, screen, [_stopped(jobs, job) for job in found], command) if found else 0
    for run in edited:
        code = _captions_back(run, jobs, screen) or code
    return code or (SOME_SKIPPED if left_out else 0)


def _captions_back(run: Run, jobs: Jobs, screen: Screen) -> int:
    edits = run.captions()
    # A run that was killed may have sent captions that are still queued.
    unsure = reschedule_captions.queued(jobs.api, edits, run.captions_key) if run.keys_are_known else {}
    back = reschedule_captions.undo(jobs.api, [edit for edit in edits if edit.post_id not in unsure])
    back.refused |= unsure
    screen.say(f"{counted(len(back.edits), 'caption')} set back.")
    reschedule_captions.say_left(screen, back)
    return back.exit_code


def _revert(jobs: Jobs, screen: Screen, found: list[Job], command: str) -> int:
    totals = Totals()
    refused: list[RefusedError] = []
    meant = [job for job in found if moved(job)]
    with screen.bar(BACK, sum(map(moved, meant)) or None) as bar:
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
        screen.summary(jobs, totals, BACK)
        if totals.moved:
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


def _jobs(named: Iterable[Run | str], jobs: Jobs, left_out: list[str]) -> list[Job]:
    """The jobs that are named, and those of the runs, each once. `left_out` gets a sentence for each run that lacks
    some.
    """
    left_out.clear()
    found: dict[str, Job] = {}
    for one in named:
        if isinstance(one, Run):
            if one.keys_are_known:
                _settle(one, jobs)
            found |= {job["id"]: job for job in job_runs.made(one, jobs, left_out.append, found)}
        elif one not in found:
            found[one] = jobs.get(one)
    return list(found.values())


def _settle(run: Run, jobs: Jobs) -> None:
    """Find the id of the job that was about to be started when the command died, if it was started."""
    for part in run.uncertain:
        if jobs.api.knows(PATH, run.key(part)):
            run.started(part, jobs.start(run.body(part), run.key(part))["id"])
