"""`redraft jobs`: bulk jobs, with a key like any client: lists, one job, stop and undo (docs/bulk.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.cli.workspaces import DATA_DIR, AsJson, echo, say, say_json

if TYPE_CHECKING:
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
    "moved": "moved",
    "skipped": "skipped",
    "failed": "failed",
    "took": "took",
}
PRIORITY: Final = ("id", "status", "total", "moved", "skipped", "failed", "createdAt", "took")
"""Which columns a narrow terminal keeps, the first one first."""


@app.command("list")
def list_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List bulk jobs, the newest first. A run of this machine with several jobs is one row; `--json` lists its jobs."""
    from functools import partial  # noqa: PLC0415 - heavy imports wait until the command runs
    from itertools import islice  # noqa: PLC0415

    from shared.cli import job_runs  # noqa: PLC0415
    from shared.cli.api_client import session  # noqa: PLC0415
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415

    with session(data_dir, f"{COMMAND} list") as api:
        jobs = Jobs(api)
        if as_json:
            found = list(islice(jobs.newest(), limit + 1))
        else:
            found = job_runs.newest(jobs, limit + 1, partial(echo, err=True))
    if as_json:
        say_json(found[:limit])
    else:
        _say_jobs(found[:limit])
    if len(found) > limit:
        echo(f"Only the first {limit:,} are shown; --limit shows more.", err=True)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="JOB|RUN", help="rsch_…, or the run_… of a whole run.")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one bulk job or run: how far it is, which posts it did not move, and what can be done with it."""
    from shared.cli import job_showing  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.cli.api_client import session  # noqa: PLC0415
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415

    with session(data_dir, f"{COMMAND} show") as api:
        job_showing.show(Jobs(api), name, data_dir, as_json=as_json)


@app.command("cancel")
def cancel(names: Named, *, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """Stop jobs before their next chunk. What was moved stays moved."""
    from shared.cli.api_client import BAD_ARGUMENTS, RefusedError, session  # noqa: PLC0415 - as above
    from shared.cli.reschedule_arguments import advised  # noqa: PLC0415
    from shared.cli.reschedule_client import Jobs  # noqa: PLC0415
    from shared.cli.reschedule_screen import moved  # noqa: PLC0415

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
                posts = moved(stopped[-1])
                undo = f"; undo that with: {advised(f'{COMMAND} revert', data_dir)} {job_id}" if posts else ""
                echo(f"{job_id} was canceled; {posts:,} posts were moved before that{undo}")
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
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    from shared.cli.job_showing import row  # noqa: PLC0415

    rows = [row(job, datetime.now(UTC)) for job in found]
    none = "There are no bulk jobs yet. Start one: redraft reschedule"
    say(rows, COLUMNS, as_json=False, none=none, priority=PRIORITY)
