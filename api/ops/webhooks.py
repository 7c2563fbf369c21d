"""Webhooks on the operators' pages: backlogs and the receiver's answers, each event's tries, and sending again."""

import time
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of, storable
from api.ops.forms import form, operator
from api.ops.frame import asked, html, message, number, page, perhaps, read
from shared.domain.errors import printable
from shared.domain.times import format_exactly, parse_instant
from shared.store import keys, webhook_backlogs, webhook_log, webhook_resends
from shared.store import posts as posts_store
from shared.store.webhook_log import EventStatus, ListedEvent
from shared.store.webhook_resends import Choice

PAGE: Final = 50
HOMES: Final = 1000
"""Workspaces that a form offers."""
AT_WORK: Final = 1.5
"""Seconds for which one press of the button makes steps of a resend; the page then offers to go on."""
UNSURE: Final = "PostgreSQL did not answer in time. Events may be queued again: look before you press again."
DONE: Final = {
    "resent": "It is queued again.",
    "left": "Nothing was done: it is queued already, or has ended since you looked.",
}

log = structlog.get_logger(__name__)


def _listed(
    tx: Connection, status: EventStatus, workspace: str | None, after: str | None
) -> tuple[list[ListedEvent], datetime]:
    found = webhook_log.events(tx, status, workspace_id=workspace, after=after, limit=PAGE + 1)
    return found, posts_store.clock(tx)


@page("/ops/webhooks")
async def list_webhooks(request: Request) -> Response:
    """Each workspace's backlog with the receiver's last answer, and the events of one status."""
    given, workspace, after = (asked(request, name) for name in ("status", "workspace", "after"))
    status = EventStatus(given) if given in set(EventStatus) else EventStatus.DEAD
    found, now = await read(request, _listed, status, workspace, after)
    # Apart: a sum that takes too long hides no list.
    backlogs = await perhaps(request, webhook_backlogs.backlogs)
    homes = await perhaps(request, keys.workspaces) or []
    shown = found[:PAGE]
    more = {"status": status.value, "workspace": workspace, "after": shown[-1].place} if len(found) > PAGE else {}
    return html(
        request,
        "webhooks.html",
        now=now,
        backlogs=backlogs,
        workspaces_most=webhook_backlogs.WORKSPACES,
        homes=homes[:HOMES],
        events=shown,
        statuses=list(EventStatus),
        status=status,
        workspace=workspace,
        after=after,
        more=urlencode({name: value for name, value in more.items() if value}),
    )


def _choice(since: str, until: str, status: str, workspace: str, now: datetime) -> Choice | None:
    """Which events are meant; None where the times are none. Without `until` those up to now."""
    begins, ends = parse_instant(since), parse_instant(until) if until else now
    if begins is None and (local := _local(since)) is not None:
        begins = local
    if begins is None or ends is None:
        return None
    chosen = EventStatus(status) if status in (EventStatus.DEAD, EventStatus.DELIVERED) else None
    return Choice(begins, min(ends, now), chosen, workspace or None)


def _local(given: str) -> datetime | None:
    """What a browser's field for a time sends: `2026-03-01T12:00`, meant as UTC."""
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else None


@page("/ops/webhooks/resend")
async def show_resend(request: Request) -> Response:
    """How many events a resend means, and the button."""
    since, until, status, workspace = (asked(request, name) or "" for name in ("since", "until", "status", "workspace"))
    now = await read(request, posts_store.clock)
    choice = _choice(since, until, status, workspace, now)
    if choice is None:
        return message(request, 400, "Since when?", "Give a time in UTC, such as 2026-03-01T12:00Z.")
    delivered, dead = await read(request, webhook_resends.count, choice)
    done, after = asked(request, "done") or "", asked(request, "after") or ""
    notice = None
    if done.isascii() and done.isdecimal() and len(done) < 10:
        notice = f"{int(done):,} events are queued again." + (" There are more: go on below." if after else "")
    return html(
        request,
        "webhook_resend.html",
        now=now,
        notice=notice,
        choice=choice,
        since=format_exactly(choice.since),
        until=format_exactly(choice.until),
        after=after if number(after) is not None else "",
        finished=bool(done) and not after,
        delivered=delivered,
        dead=dead,
    )


@page("/ops/webhooks/resend", "POST")
async def resend_all(request: Request) -> Response:
    """Queue the next of the chosen events again: short transactions for a moment, then the page says how it stands.

    Events that ended after the operator looked are left alone. So a second press, or another operator, repeats nothing.
    """
    fields, context, actor = await form(request), context_of(request), operator(request)
    names = ("since", "until", "status", "workspace")
    since, until, status, workspace = (fields.get(name, "") for name in names)
    now = await read(request, posts_store.clock)
    choice = _choice(since, until, status, workspace, now) if until and storable(workspace) else None
    if choice is None:
        return message(request, 400, "That did not work", "The form was incomplete. Open the page again.")
    total, after = 0, number(fields.get("after", ""))
    until_then = time.monotonic() + AT_WORK
    while True:
        resent = await context.write(webhook_resends.resend_step, choice, actor, after, unsure=UNSURE)
        context.ring(webhooks=resent.post_ids)
        total, after = total + len(resent.event_ids), resent.after
        if after is None or time.monotonic() > until_then:
            break
    log.info("operator_decided", done="resent", events=total, by=actor.name)
    went = {"since": since, "until": until, "status": status, "workspace": workspace, "done": total, "after": after}
    return RedirectResponse(f"/ops/webhooks/resend?{urlencode({k: v for k, v in went.items() if v or v == 0})}", 303)


@page("/ops/webhooks/{event_id}")
async def show_event(request: Request) -> Response:
    """One event: each try with its answer, and the button that sends it again."""
    event_id = request.path_params["event_id"]
    found = await read(request, webhook_log.event_log, event_id) if storable(event_id) else None
    if found is None:
        return message(request, 404, "No such event", f"There is no webhook event {printable(event_id)}.")
    done = asked(request, "done") or ""
    return html(
        request,
        "webhook_event.html",
        now=found.event.now,
        notice=DONE.get(done),
        notice_kind="good" if done == "resent" else "warn",
        found=found,
        event=found.event,
        ended=found.event.status is not EventStatus.QUEUED,
        until=format_exactly(found.event.now),
    )


@page("/ops/webhooks/{event_id}/resend", "POST")
async def resend_one(request: Request) -> Response:
    """Queue one event again, if it has not been since the operator saw it."""
    fields, event_id, actor = await form(request), request.path_params["event_id"], operator(request)
    until = parse_instant(fields.get("until", ""))
    if until is None or not storable(event_id):
        return message(request, 400, "That did not work", "The form was incomplete. Open the page again.")
    context = context_of(request)
    resent = await context.write(webhook_resends.resend, [event_id], until, actor, unsure=UNSURE)
    context.ring(webhooks=resent.post_ids)
    log.info("operator_decided", done="resent", events=len(resent.event_ids), event_id=event_id, by=actor.name)
    done = "resent" if resent.event_ids else "left"
    return RedirectResponse(f"/ops/webhooks/{quote(event_id)}?done={done}", 303)
