"""`redraft prune`: remove old rows that are no longer needed, in small steps that may be stopped anywhere."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from shared.cli.ages import RULE, parse_age
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, database, refuse, say_json


def prune(
    *,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="How old: 90d, 12w or 48h.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much there is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Remove old ended edits, bulk jobs, publish attempts, idempotency keys and webhook events.

    What is still needed stays, however old: queued and failed edits, the tries of posts that may still go out, jobs
    that go on. Run it from cron; it may be interrupted and run again.
    """
    from shared.store import retention  # noqa: PLC0415 - heavy imports wait until the command runs

    seconds = _seconds(older_than)
    with database(data_dir) as tx:
        before = retention.cutoff(tx, seconds)
    if as_json and not (dry_run or yes):
        refuse("--json asks nothing: add --dry-run or --yes.")
    found = _run(data_dir, before, remove=False) if not yes or dry_run else {}
    if found and not as_json:
        typer.echo(f"Older than {before:%Y-%m-%d %H:%M} UTC:\n{_table(found)}")
    if dry_run or (found and not any(found.values())):
        if as_json:
            say_json({"before": before.isoformat(), "dryRun": True, "found": found})
        return
    if not yes and not typer.confirm("Remove all this for good?"):
        typer.echo("Nothing was removed.")
        raise typer.Exit(1)
    removed = _run(data_dir, before, remove=True)
    if as_json:
        say_json({"before": before.isoformat(), "dryRun": False, "removed": removed})
    else:
        typer.echo(f"Removed:\n{_table(removed)}")


def _run(data_dir: Path, before: datetime, *, remove: bool) -> dict[str, int]:
    """Sweep through all kinds, each step in a short transaction of its own; how many rows of each."""
    from shared.store import retention  # noqa: PLC0415 - as above

    counts = dict.fromkeys(retention.KINDS, 0)
    for kind in retention.KINDS:
        after = None
        while True:
            with database(data_dir) as tx:
                swept = retention.sweep(tx, kind, before, after, remove=remove)
            counts[kind] += swept.rows
            if swept.after is None:
                break
            after = swept.after
    return counts


def _seconds(age: str) -> int:
    """An age in seconds. Exits with 2 for one that cannot be read, and for one that would break a promise."""
    from shared.settings import settings  # noqa: PLC0415 - as above

    length = parse_age(age)
    if length is None:
        refuse(f"--older-than {age}: {RULE}.")
    seconds = int(length.total_seconds())
    least = max(24, settings().idempotency_hours)
    if seconds < least * 3600:
        refuse(f"--older-than {age}: clients may repeat a request for {least} hours; choose {least}h or more.")
    return seconds


def _table(counts: dict[str, int]) -> str:
    return "\n".join(f"  {count:>12,}  {kind}" for kind, count in counts.items())
