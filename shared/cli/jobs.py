"""`redraft jobs`: bulk jobs, with a key like any client: lists, one job, stop and undo (docs/bulk.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli.workspaces import DATA_DIR, AsJson, echo, say, say_json, screen_width

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from shared.cli.reschedule_client import Job

app = typer.Typer(help="Bulk jobs: lists, progress, stop and undo.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--data-dir", help="Where a local stack's stack.json lies.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
Named = Annotated[list[str], typer.Argument(metavar="JOB...", help="As `redraft jobs list` shows it: rsch_…")]
COMMAND: Final = "redraft jobs"
COLUMNS: Final = {
    "id": "job",
    "status": "status",
    "createdAt": "started",
    "total": "posts",
    "applied": "moved",
    "skipped": "skipped",
    "failed": "failed",
    "dryRun": "dry",
    "took": "took",
}
PRIORITY: Final = ("id", "status", "total", "applied", "skipped", "failed", "createdAt", "dryRun", "took")
"""Which columns a narrow terminal keeps, the first one first."""


@app.command("list")
def list_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List bulk jobs, the newest first."""
    from itertools import islice  # noqa: PLC0415 - heavy imports wait until the command runs

    from shared.cli.api_client import session  # noqa: PLC0415
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415

    with session(data_dir, f"{COMMAND} list") as api:
        found = list(islice(Jobs(api).newest(), limit + 1))
    if as_json:
        say_json(found[:limit])
    else:
        _say_jobs(found[:limit])
    if len(found) > limit:
        echo(f"Only the first {limit:,} are shown; --limit shows more.", err=True)


@app.command("show")
def show(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="As `redraft jobs list` shows it: rsch_…")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one bulk job: how far it is, which posts it did not move, and what can be done with it."""
    from shared.cli.api_client import session  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.cli.reschedule_client import LIVE, Jobs  # noqa: PLC0415
    from shared.cli.reschedule_screen import Screen, Totals, decided  # noqa: PLC0415

    with session(data_dir, f"{COMMAND} show") as api:
        jobs = Jobs(api)
        job = jobs.get(job_id)
        if as_json:
            say_json(job)
            return
        screen, totals = Screen(as_json=False), Totals()
        totals.add(job)
        shown = _row(job, _now())
        dry = ", a dry run" if job["dryRun"] else ""
        screen.say(f"{job['id']}: {job['status']}{dry}")
        away = f" ({shown['createdAt']})" if shown["createdAt"] != job["createdAt"] else ""
        ended = f"ended after {shown['took']}" if shown["took"] else "has not ended"
        screen.say(f"Started {job['createdAt']}{away}, {ended}")
        of = "not known yet" if job["total"] is None else f"{job['total']:,}"
        screen.say(f"Posts: {of}; decided: {decided(job):,}; moved: {job['applied']:,}")
        screen.reasons(jobs, totals)
        if "error" in job:
            screen.say(f"It failed: {job['error']}")
        if job["status"] in LIVE:
            screen.say(f"Watch it: redraft reschedule --watch {job['id']}")
            screen.say(f"Stop it:  {COMMAND} cancel {job['id']}")
        if job["applied"] and not job["dryRun"]:
            screen.say(f"Undo it:  {COMMAND} revert {job['id']}")


@app.command("cancel")
def cancel(names: Named, *, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """Stop jobs before their next chunk. What was moved stays moved."""
    from shared.cli.api_client import BAD_ARGUMENTS, RefusedError, session  # noqa: PLC0415 - as above
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415

    stopped, refused = [], 0
    with session(data_dir, f"{COMMAND} cancel") as api:
        for job_id in dict.fromkeys(names):
            try:
                stopped.append(Jobs(api).cancel(job_id))
            except RefusedError as error:
                if error.status not in (404, 409):
                    raise
                refused += 1
                echo(f"{job_id}: {error}", err=True)
                continue
            if not as_json:
                undo = f"; undo that with: {COMMAND} revert {job_id}" if stopped[-1]["applied"] else ""
                echo(f"{job_id} was canceled; {stopped[-1]['applied']:,} posts were moved before that{undo}")
    if as_json:
        say_json(stopped)
    if refused:
        raise typer.Exit(BAD_ARGUMENTS if not stopped else 1)


@app.command("revert")
def revert(
    names: Annotated[list[str], typer.Argument(metavar="JOB|RUN...", help="rsch_…, or the run_… of a whole run.")],
    *,
    yes: Yes = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Undo jobs, or all jobs of a run: stop what still runs, and move back what was moved.

    A post is moved back only if its time and zone are still what the job set. Entered again, this does nothing twice.
    """
    from shared.cli.api_client import session  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.cli.reschedule_arguments import advised  # noqa: PLC0415
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415
    from shared.cli.reschedule_screen import Screen  # noqa: PLC0415
    from shared.cli.reschedule_undo import check_answerable, undo  # noqa: PLC0415

    with session(data_dir, f"{COMMAND} revert") as api:
        check_answerable(yes=yes)
        code = undo(Jobs(api), Screen(as_json=as_json), names, advised(f"{COMMAND} revert", data_dir), yes=yes)
    raise typer.Exit(code)


def _say_jobs(found: "list[Job]") -> None:
    now = _now()
    rows = [_row(job, now) for job in found]
    none = "There are no bulk jobs yet. Start one: redraft reschedule"
    say(rows, COLUMNS, as_json=False, none=none, priority=PRIORITY)


def _row(job: "Job", now: "datetime") -> dict[str, str]:
    """A job as a terminal shows it: times are relative there."""
    from datetime import datetime  # noqa: PLC0415 - as above

    from shared.domain import histories  # noqa: PLC0415

    began = datetime.fromisoformat(job["createdAt"])
    ended = datetime.fromisoformat(job["finishedAt"]) if job["finishedAt"] else None
    counts: dict[str, Any] = {name: job[name] for name in ("total", "applied", "skipped", "failed")}
    return {
        "id": job["id"],
        "status": job["status"],
        "createdAt": histories.away(began, now) if screen_width() else job["createdAt"],
        **{name: "" if count is None else f"{count:,}" for name, count in counts.items()},
        "dryRun": "dry" if job["dryRun"] else "",
        "took": _took(ended - began) if ended else "",
    }


def _took(length: "timedelta") -> str:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    # The API's times have whole seconds.
    return edit_histories.duration(length) if length else "less than 1 s"


def _now() -> "datetime":
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    return datetime.now(UTC)
