"""`redraft reschedule`: bulk jobs from the command line, with a key like any client (docs/bulk.md)."""

from pathlib import Path
from typing import Annotated

import typer


def reschedule(
    *,
    account: Annotated[list[str] | None, typer.Option(help="Posts of this account; may be given again.")] = None,
    platform: Annotated[str, typer.Option(help="Posts on tiktok or on instagram.")] = "",
    scheduled_from: Annotated[
        str, typer.Option("--from", help="Posts scheduled at this UTC time or later, like 2030-04-22T19:00Z.")
    ] = "",
    scheduled_to: Annotated[str, typer.Option("--to", help="Posts scheduled before this UTC time.")] = "",
    post: Annotated[list[str] | None, typer.Option(help="This post; may be given again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every waiting post of the workspace.")] = False,
    shift: Annotated[
        str, typer.Option(help="Move by a duration: P1D keeps the wall clock, -PT90M moves the instant.")
    ] = "",
    spread_from: Annotated[str, typer.Option(help="Spread the posts evenly, the first at this local time.")] = "",
    spread_to: Annotated[str, typer.Option(help="The last at this local time.")] = "",
    timezone: Annotated[str, typer.Option(help="The zone of --spread-from and --spread-to.")] = "",
    min_gap: Annotated[
        str, typer.Option(help="Skip posts that would come nearer than this to another of their account: PT30M.")
    ] = "",
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Move each post where this file says, as `redraft posts export --csv` writes it. - is standard input.",
        ),
    ] = None,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Send the good lines of a CSV all the same.")
    ] = False,
    first_line: Annotated[int, typer.Option(help="Go on with a CSV from this line.", min=2)] = 2,
    resume: Annotated[
        str, typer.Option(metavar="RUN", help="Go on with a run of this machine that was interrupted or killed.")
    ] = "",
    watch: Annotated[str, typer.Option(metavar="JOB", help="Follow a job that goes on.")] = "",
    cancel: Annotated[str, typer.Option(metavar="JOB", help="Stop a job before its next chunk.")] = "",
    revert: Annotated[str, typer.Option(metavar="JOB", help="Undo a job, where posts are still as it left them.")] = "",
    results: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of each post into this file, as CSV.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide everything, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each ended job as a line of JSON.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Where a local stack's stack.json lies.")] = Path(".redraft"),
) -> None:
    """Move many posts at once: a preview, a question, a progress bar, a summary.

    Ends with 0 if all posts were moved, 3 if some were skipped, 1 if some failed,
    2 for bad arguments, 130 if it was interrupted.

    REDRAFT_API_URL and REDRAFT_API_KEY say where the API is, else the stack.json
    of a local stack.
    """
    # Heavy imports wait until the command runs.
    from shared.cli.reschedule_arguments import Asked  # noqa: PLC0415
    from shared.cli.reschedule_run import run  # noqa: PLC0415

    asked = Asked(
        filter={
            "accountIds": account,
            "platform": platform,
            "scheduledFrom": scheduled_from,
            "scheduledTo": scheduled_to,
            "postIds": post,
            "all": everything,
        },
        shift=shift,
        spread={"from": spread_from, "to": spread_to, "timezone": timezone},
        min_gap=min_gap,
        csv=csv,
        skip_bad_lines=skip_bad_lines,
        first_line=first_line,
        job={"watch": watch, "cancel": cancel, "revert": revert, "resume": resume},
        results=results,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
        data_dir=data_dir,
    )
    raise typer.Exit(run(asked))
