"""A bulk job, or a run of several, in words: how far it is, what it did not move, what can be done with it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shared.cli import job_runs
from shared.cli.reschedule_arguments import advised
from shared.cli.reschedule_client import LIVE, Job, Jobs
from shared.cli.reschedule_screen import Screen, Totals, decided, moved
from shared.cli.workspaces import say_json, screen_width
from shared.domain import edit_histories, histories

JOBS: Final = "redraft jobs"
RESCHEDULE: Final = "redraft reschedule"


def show(jobs: Jobs, name: str, data_dir: Path, *, as_json: bool) -> None:
    """Say all of a job or a run. Raises ArgumentsError, RefusedError, UnreachableError."""
    run = job_runs.found(name, jobs) if job_runs.is_run(name) else None
    screen, totals = Screen(as_json=False), Totals()
    made = job_runs.made(run, jobs, screen.complain) if run else [jobs.get(name)]
    shown = job_runs.as_one(run, made) if run else made[0]
    if as_json:
        say_json(shown | {"jobs": made} if run else shown)
        return
    for job in made:
        totals.add(job)
    _say_times(screen, shown)
    if run:
        screen.say(f"Jobs: {run.parts:,}; started: {len(run.jobs):,}")
        for job in made:
            screen.say(f"  {job['id']}: {job['status']}, moved {moved(job):,} of {job['total'] or 0:,}")
    of = "not known yet" if shown["total"] is None else f"{shown['total']:,}"
    would = "would be " if shown["dryRun"] else ""
    screen.say(f"Posts: {of}; decided: {sum(map(decided, made)):,}; {would}moved: {totals.moved:,}")
    if totals.unchanged:
        screen.say(f"Had their times already: {totals.unchanged:,}")
    captions = len(run.captions()) if run else 0
    if captions:
        screen.say(f"Captions that it changes: {captions:,}")
    screen.reasons(jobs, totals)
    for job in made:
        if "error" in job:
            screen.say(f"It failed: {job['error']}")
    undone = run is not None and run.undone and not run.jobs
    _say_ways(screen, shown, made, data_dir, undo=bool(totals.moved or captions) and not undone)


def _say_ways(screen: Screen, shown: Job, made: Sequence[Job], data_dir: Path, *, undo: bool) -> None:
    for job in made:
        if job["status"] in LIVE:
            screen.say(f"Watch it: {advised(RESCHEDULE, data_dir)} --watch {job['id']}")
            screen.say(f"Stop it:  {advised(f'{JOBS} cancel', data_dir)} {job['id']}")
    if shown["status"] == job_runs.STOPPED:
        screen.say(f"Go on:    {advised(RESCHEDULE, data_dir)} --resume {shown['id']}")
    if undo and not shown["dryRun"]:
        screen.say(f"Undo it:  {advised(f'{JOBS} revert', data_dir)} {shown['id']}")


def _say_times(screen: Screen, shown: Job) -> None:
    columns = row(shown, datetime.now(UTC))
    dry = ", a dry run" if shown["dryRun"] else ""
    screen.say(f"{shown['id']}: {shown['status']}{dry}")
    away = f" ({columns['createdAt']})" if columns["createdAt"] != shown["createdAt"] else ""
    ended = f"ended after {columns['took']}" if columns["took"] else "has not ended"
    screen.say(f"Started {shown['createdAt']}{away}, {ended}")


def row(job: Job, now: datetime) -> dict[str, str]:
    """A job as a terminal shows it: times are relative there."""
    began = datetime.fromisoformat(job["createdAt"])
    ended = datetime.fromisoformat(job["finishedAt"]) if job["finishedAt"] else None
    counts: dict[str, Any] = {name: job[name] for name in ("total", "skipped", "failed")}
    return {
        "id": job["id"],
        "status": job["status"],
        "createdAt": histories.away(began, now) if screen_width() else job["createdAt"],
        **{name: "" if count is None else f"{count:,}" for name, count in counts.items()},
        # Not as a column of its own, which a narrow terminal leaves out.
        "moved": f"{moved(job):,}{' dry' if job['dryRun'] else ''}",
        # Both times are whole seconds.
        "took": "" if ended is None else "<1 s" if ended == began else edit_histories.duration(ended - began),
    }
