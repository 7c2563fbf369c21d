"""`redraft webhooks resend`: deliver events once more, one or all since a time, with the count first."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.post_retries import parse_since
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, database, echo, find_workspace, refuse, say_json

if TYPE_CHECKING:
    from shared.store.webhook_resends import Choice, Resent

STATUSES: Final = ("dead", "delivered")
SAYS_EVERY: Final = 50
"""Steps after which a resend says how far it is."""


def resend(
    event_ids: Annotated[list[str] | None, typer.Argument(metavar="EVENT...", help="These events: evt_…")] = None,
    *,
    since: Annotated[
        str | None, typer.Option(help="All that were delivered or given up since then, UTC: 2026-03-01T12:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Of those, the ones up to then; up to now without it.")] = None,
    status: Annotated[str | None, typer.Option(help="Of those, only the dead or only the delivered ones.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Of those, only this workspace's: its id or its name.")] = None,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Deliver events once more, with the same id and body. Receivers take a repeat for what it is."""
    if bool(event_ids) == (since is not None) or (event_ids and (until or status or workspace)):
        refuse("Which events? Name them, or say which with --since, --until, --status and --workspace.")
    if status is not None and status not in STATUSES:
        refuse(f"--status is dead or delivered, not {status!r}.")
    if as_json and not yes:
        refuse("--json asks no questions: give --yes too.")
    if event_ids:
        _resend_named(list(dict.fromkeys(event_ids)), data_dir, operator_name(by), yes=yes, as_json=as_json)
        return
    choice, events = _chosen(since, until, status, workspace, data_dir, quiet=as_json)
    if not yes and events:
        typer.confirm(_question(events), abort=True)
    total = _resend_all(choice, data_dir, operator_name(by), quiet=as_json)
    if as_json:
        from shared.domain.times import format_exactly  # noqa: PLC0415 - heavy imports wait until the command runs

        say_json({"resent": total, "since": format_exactly(choice.since), "until": format_exactly(choice.until)})
    else:
        echo(f"{total:,} {'event is' if total == 1 else 'events are'} queued again.")


def _chosen(
    since: str | None, until: str | None, status: str | None, workspace: str | None, data_dir: Path, *, quiet: bool
) -> "tuple[Choice, int]":
    """Which events are meant, and how many; a count that stopped is the least."""
    from shared.store import posts as posts_store  # noqa: PLC0415 - as above
    from shared.store import webhook_log, webhook_resends  # noqa: PLC0415

    begins, ends = parse_since(since), parse_since(until)
    with database(data_dir) as tx:
        # From here on a twin's events are left alone: those have ended, or have been queued again, later.
        now = posts_store.clock(tx)
        home = find_workspace(tx, workspace).id if workspace is not None else None
        chosen = webhook_log.EventStatus(status) if status else None
        choice = webhook_resends.Choice(begins or now, min(ends or now, now), chosen, home)
        delivered, dead = webhook_resends.count(tx, choice)
    if not quiet:
        echo(f"{counted(delivered)} delivered and {counted(dead)} dead events ended in that time.")
    return choice, delivered + dead


def _resend_named(event_ids: list[str], data_dir: Path, by: str, *, yes: bool, as_json: bool) -> None:
    """Resend these events, and say of each what was done. Exits with 1 if one was left as it is."""
    from shared.store import posts as posts_store  # noqa: PLC0415 - as above
    from shared.store import webhook_log  # noqa: PLC0415

    with database(data_dir) as tx:
        seen_at = posts_store.clock(tx)
        logs = [webhook_log.event_log(tx, name) for name in event_ids]
    known = {one.event.id: one.event for one in logs if one is not None}
    missing = [name for name in event_ids if name not in known]
    for name in missing:
        echo(f"There is no event {name}.", err=True)
    if known and not yes:
        for event in known.values():
            echo(f"{event.id} {event.type} of {event.post_id}: {event.status.value}")
        typer.confirm(_question(len(known)), abort=True)
    done = _named(list(known), seen_at, data_dir, by)
    left = [name for name in known if name not in done]
    if as_json:
        said = [{"eventId": name, "done": True, "why": None} for name in done]
        said += [{"eventId": name, "done": False, "why": "queued_already"} for name in left]
        say_json(said + [{"eventId": name, "done": False, "why": "no_such_event"} for name in missing])
    else:
        echo(f"{len(done):,} of {len(event_ids):,} {'event is' if len(done) == 1 else 'events are'} queued again.")
        for name in left:
            echo(f"{name} is queued already; `redraft webhooks show {name}` says when it is tried.", err=True)
    if missing or left:
        raise typer.Exit(1)


def counted(number: int) -> str:
    """Such as `1,204`, or `10,000+` where counting stopped."""
    from shared.store import webhook_log  # noqa: PLC0415 - as above

    return f"{number:,}" + ("+" if number >= webhook_log.MANY else "")


def _question(events: int) -> str:
    return "Send it again?" if events == 1 else f"Send {counted(events)} events again?"


def _named(event_ids: list[str], until: datetime, data_dir: Path, by: str) -> list[str]:
    from shared.store import webhook_resends  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    done: list[str] = []
    for start in range(0, len(event_ids), webhook_resends.TOGETHER):
        some = event_ids[start : start + webhook_resends.TOGETHER]
        with database(data_dir) as tx:
            resent = webhook_resends.resend(tx, some, until, Actor(by))
        _ring(resent, data_dir)
        done += resent.event_ids
    return done


def _resend_all(choice: "Choice", data_dir: Path, by: str, *, quiet: bool) -> int:
    """Queue all of them again, a step after the other, each in a transaction of its own; how many."""
    from shared.domain.times import format_exactly  # noqa: PLC0415 - as above
    from shared.store import webhook_resends  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    total, after = 0, None
    try:
        number = 0
        while True:
            number += 1
            with database(data_dir) as tx:
                resent = webhook_resends.resend_step(tx, choice, Actor(by), after)
            _ring(resent, data_dir)
            total, after = total + len(resent.event_ids), resent.after
            if after is None:
                return total
            if not quiet and number % SAYS_EVERY == 0:
                echo(f"{total:,} so far")
    except (KeyboardInterrupt, typer.Exit):
        # What has been queued again since then has ended later, and is not sent a third time.
        echo(
            f"Stopped after {total:,} events. Go on with the same command and --until {format_exactly(choice.until)}",
            err=True,
        )
        raise


def _ring(resent: "Resent", data_dir: Path) -> None:
    """Ring while the queue has room. What is not rung for, rescue finds within seconds."""
    from shared.broker import queue  # noqa: PLC0415 - as above

    found = parts(data_dir)
    if resent.post_ids and found.redis_url:
        with reaching(found):
            if queue.free_capacity("webhooks"):
                queue.ring_webhooks(resent.post_ids)
