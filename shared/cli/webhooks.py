"""`redraft webhooks`: how far the receiver is behind, what it answered, and which events wait or were given up."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli.webhook_resend import resend
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo,
    find_workspace,
    refuse,
    say,
    say_json,
    screen_width,
)

if TYPE_CHECKING:
    from datetime import datetime

    from shared.store.webhook_log import Answer, EventLog, ListedEvent

app = typer.Typer(
    help="Webhooks: backlog, dead events, each event's tries, and sending events again.", no_args_is_help=True
)
app.command("resend")(resend)
ROOMY: Final = 120
"""Columns of a terminal from which on a list shows the posts and types of events too."""


class EventState(StrEnum):
    """The store's EventStatus once more, for typer, which wants it before anything heavy is imported."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


@app.command("status")
def status(*, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """For each workspace: events that wait, the oldest of them, dead ones, and the receiver's last answer."""
    from shared.domain import edit_histories  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.domain.histories import away  # noqa: PLC0415
    from shared.store import posts as posts_store  # noqa: PLC0415
    from shared.store import webhook_backlogs  # noqa: PLC0415

    with database(data_dir) as tx:
        found = webhook_backlogs.backlogs(tx)
        now = posts_store.clock(tx)
    if as_json:
        say_json(
            [
                {
                    "workspaceId": one.workspace_id,
                    "workspace": one.name,
                    "queued": one.queued,
                    "oldestAt": edit_histories.moment(one.oldest),
                    "dead": one.dead,
                    "countedUpTo": one.most,
                    "tookSeconds": one.typical.total_seconds() if one.typical is not None else None,
                    "lastAnswer": _answer_json(one.last),
                }
                for one in found
            ]
        )
        return
    rows = [
        {
            "workspace": one.name,
            "queued": one.counted(one.queued),
            "oldest": away(one.oldest, now) if one.oldest else "",
            "dead": one.counted(one.dead),
            "takes": edit_histories.duration(one.typical) if one.typical is not None else "",
            "answer": _answer_words(one.last, now),
        }
        for one in found
    ]
    headings = {
        "workspace": "workspace",
        "queued": "waiting",
        "oldest": "the oldest",
        "dead": "dead",
        "takes": "takes",
        "answer": "last answer",
    }
    say(rows, headings, as_json=False, none="There are no webhook events.", wraps="answer")
    if len(found) >= webhook_backlogs.WORKSPACES:
        echo(f"Only {webhook_backlogs.WORKSPACES} workspaces are shown, those that wait longest first.")


def _answer_json(answer: "Answer | None") -> dict[str, Any] | None:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    if answer is None:
        return None
    return {
        "at": edit_histories.moment(answer.at),
        "outcome": answer.outcome.value,
        "status": answer.status,
        "message": answer.message,
        "tookSeconds": answer.took.total_seconds() if answer.took is not None else None,
    }


def _answer_words(answer: "Answer | None", now: "datetime") -> str:
    from shared.domain.histories import away  # noqa: PLC0415 - as above

    return "none yet" if answer is None else f"{answer.words}, {away(answer.at, now)}"


@app.command("list")
def list_events(
    *,
    status: Annotated[
        EventState, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(EventState)}.")
    ] = EventState.DEAD,
    workspace: Annotated[str | None, typer.Option(help="Only this workspace's: its id or its name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List dead events, the newest first; queued ones, the longest waiting first."""
    from shared.domain.histories import away  # noqa: PLC0415 - as above
    from shared.store import webhook_log  # noqa: PLC0415

    with database(data_dir) as tx:
        home = find_workspace(tx, workspace).id if workspace is not None else None
        wanted = webhook_log.EventStatus(status.value)
        found = webhook_log.events(tx, wanted, workspace_id=home, limit=limit + 1)
    if as_json:
        say_json([_event_json(event) for event in found[:limit]])
        return
    rows = [
        {
            "eventId": event.id,
            "postId": event.post_id,
            "type": event.type,
            "made": away(event.created_at, event.now),
            "tries": event.tries,
            "answer": _answer_words(event.last, event.now),
        }
        for event in found[:limit]
    ]
    headings = {"eventId": "id", "made": "made", "tries": "tries", "answer": "last answer"}
    if (screen_width() or ROOMY) >= ROOMY:
        headings = {"eventId": "id", "postId": "post", "type": "type"} | headings
    say(rows, headings, as_json=False, none=f"There are no {status.value} events.", wraps="answer")
    if len(found) > limit:
        echo(f"There are more than {limit:,}; --limit shows more.")


def _event_json(event: "ListedEvent") -> dict[str, Any]:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    return {
        "eventId": event.id,
        "sequence": event.seq,
        "workspaceId": event.workspace_id,
        "postId": event.post_id,
        "type": event.type,
        "status": event.status.value,
        "createdAt": edit_histories.moment(event.created_at),
        "queuedAt": edit_histories.moment(event.queued_at),
        "finishedAt": edit_histories.moment(event.finished_at),
        "tries": event.tries,
        "lastAnswer": _answer_json(event.last),
    }


@app.command("show")
def show(
    event_id: Annotated[str, typer.Argument(metavar="EVENT", help="As lists and the receiver see it: evt_…")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one event: each try with its time and answer, and who sent it again."""
    from shared.store import webhook_log  # noqa: PLC0415 - as above

    with database(data_dir) as tx:
        found = webhook_log.event_log(tx, event_id)
    if found is None:
        refuse(f"There is no event {event_id}. See which there are: redraft webhooks list")
    if as_json:
        tries = [{"number": number} | (_answer_json(answer) or {}) for number, answer in found.tries]
        say_json(_event_json(found.event) | {"log": tries, "acts": [act.as_json() for act in found.acts]})
        return
    for line in _lines(found):
        echo(line)


def _took(answer: "Answer") -> str:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    return edit_histories.duration(answer.took) if answer.took is not None else "not known"


def _lines(found: "EventLog") -> list[str]:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above
    from shared.domain.histories import away  # noqa: PLC0415
    from shared.store import webhook_log  # noqa: PLC0415

    event, moment = found.event, edit_histories.moment
    lines = [
        f"{event.id} {event.type} of {event.post_id} in {event.workspace_id}: {event.status.value}",
        f"  {'made':<12} {moment(event.created_at)}",
    ]
    if found.resent_at:
        lines.append(f"  {'sent again':<12} {moment(found.resent_at)}")
    if event.finished_at:
        lines.append(f"  {'ended':<12} {moment(event.finished_at)}")
    if event.status is webhook_log.EventStatus.QUEUED and event.next_at:
        lines.append(f"  {'next try':<12} {away(event.next_at, event.now)}")
    lines.append(f"{event.tries:,} {'try' if event.tries == 1 else 'tries'}, the newest first:")
    for number, answer in found.tries:
        lines.append(f"  {number:>5}  {moment(answer.at)}  {_took(answer):>9}  {answer.words}")
    if event.tries > len(found.tries):
        lines.append("  Older tries, and tries of an older version, are not shown.")
    if found.acts:
        lines.append("What was done to it:")
    lines += [f"  {moment(act.at)} {act.words()}" for act in found.acts]
    return lines
