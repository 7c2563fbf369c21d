"""Runs of this machine beside the bulk jobs that they are made of: a run of many jobs is shown as one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from shared.cli import reschedule_journal
from shared.cli.reschedule_client import LIVE, Job, Jobs
from shared.cli.reschedule_journal import PREFIX, Run
from shared.domain.plurals import counted
from shared.domain.times import format_instant

STOPPED: Final = "stopped"
SUMS: Final = ("applied", "unchanged", "skipped", "failed")


def is_run(name: str) -> bool:
    """Whether a person names a run, by its id or its folder, and not a job."""
    return name.startswith(PREFIX) or "/" in name


def found(name: str, jobs: Jobs) -> Run:
    """The run of that name, which went to this API. Raises ArgumentsError."""
    run = reschedule_journal.find(name)
    reschedule_journal.check_place(run, jobs.api.url)
    return run


def made(run: Run, jobs: Jobs, say: Callable[[str], None], known: Mapping[str, Job] | None = None) -> list[Job]:
    """The jobs that the run started, less those that the API has no more; `say` says how many those are. `known`: jobs
    that were read already. Raises RefusedError, UnreachableError.
    """
    found = [(known or {}).get(job_id) or jobs.find(job_id) for job_id in run.jobs.values()]
    there = [job for job in found if job is not None]
    if gone := len(found) - len(there):
        say(deleted(run, gone))
    return there


def deleted(run: Run, count: int) -> str:
    """The sentence about jobs that the API has no more."""
    return f"{run.name}: {counted(count, 'job')} of it {'was' if count == 1 else 'were'} deleted, and left out here."


def as_one(run: Run, started: Sequence[Job]) -> Job:
    """A run in the form of a job: the counters of its jobs together. `started`: as `made` finds them."""
    ended = [job["finishedAt"] for job in started if job["finishedAt"]]
    sums: dict[str, Any] = {name: sum(job.get(name) or 0 for job in started) for name in SUMS}
    totals = [job["total"] for job in started]
    finished = max(ended) if ended and len(ended) == len(started) else None
    if run.undone_at and not run.jobs:
        # No job of it can begin any more.
        finished = format_instant(run.undone_at)
    total = run.total if run.total is not None else None if None in totals else sum(totals)
    return {
        "id": run.name,
        "status": status(run, started),
        "dryRun": False,
        "total": total,
        **sums,
        "createdAt": format_instant(run.created_at),
        "finishedAt": finished,
    }


def status(run: Run, started: Iterable[Job]) -> str:
    """That of its jobs, and two more: `stopped` has jobs that were never sent, `undone` was undone as a whole."""
    statuses = {job["status"] for job in started}
    if statuses & LIVE:
        return "running"
    if run.undone:
        return "undone"
    if len(run.jobs) < run.parts:
        return STOPPED
    return next((one for one in ("failed", "canceled") if one in statuses), "done")


def newest(jobs: Jobs, limit: int, say: Callable[[str], None]) -> list[Job]:
    """At most `limit` runs and jobs of no run, the newest first, in the form of jobs. `say`: as `made` has it."""
    runs = {
        job_id: run
        for run in reschedule_journal.kept(jobs.api.url)
        if run.parts > 1 or run.has_captions
        for job_id in run.jobs.values()
    }
    rows: dict[str, Job | Run] = {}
    seen: dict[str, Job] = {}
    for job in jobs.newest():
        run = runs.get(job["id"])
        name = run.name if run else job["id"]
        if name not in rows and len(rows) == limit:
            break
        rows[name] = run or job
        seen[job["id"]] = job
    return [as_one(row, made(row, jobs, say, seen)) if isinstance(row, Run) else row for row in rows.values()]
