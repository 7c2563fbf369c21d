"""Failed edits on the operators' pages: by error with counts, and requeue and discard of all that a filter means."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import Context, context_of, storable
from api.ops.edits import FIELDS, Asked, fields_of, read_filter
from api.ops.forms import form, operator
from api.ops.frame import asked, html, message, number, page, read
from shared.domain import requeues
from shared.domain.edit_histories import Prospect
from shared.domain.errors import Unavailable
from shared.domain.lifecycle import EditStatus
from shared.store import mending
from shared.store.acts import Actor
from shared.store.mending import ErrorGroups, Mended

AT_ONCE: Final = 1000
"""Edits that one press of a button mends. The page says so if the filter means more."""
LOOKS: Final = 10
"""Times that `mending.choose` looks for a rare filter."""
SHOWN: Final = 50
NAMED: Final = 10
"""Posts that are named, of those with later changes."""
UNSURE: Final = "PostgreSQL did not answer in time. It may have been done: look at the failed edits first."
DONE: Final = {"requeued": "queued again", "discarded": "discarded, for good"}

_GROUP = re.compile(r"[0-9a-f]{32}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The oldest failed edits that a filter means, and what a requeue of them would do. `more`: there are others."""

    asked: Asked
    prospects: list[Prospect]
    more: bool
    up_to: int


def _meant(tx: Connection, fields: dict[str, str], up_to: int | None) -> Asked:
    """The filter of these fields, for failed edits that have their place by now."""
    found = read_filter(tx, fields)
    group = fields.get("group")
    if group is not None and not _GROUP.fullmatch(group):
        found = replace(found, faults=(*found.faults, "There is no such group of failed edits."))
    wanted = replace(
        found.wanted,
        status=EditStatus.FAILED.value,
        job_id=None,
        group=group,
        up_to=mending.last_place(tx) if up_to is None else up_to,
    )
    return replace(found, wanted=wanted)


def _choose(tx: Connection, fields: dict[str, str], up_to: int | None) -> _Chosen:
    found = _meant(tx, fields, up_to)
    ids: list[str] = []
    place: int | None = None if found.faults else -1
    for _ in range(LOOKS):
        if place is None or len(ids) > AT_ONCE:
            break
        chosen = mending.choose(tx, found.wanted, AT_ONCE + 1 - len(ids), place)
        ids, place = ids + chosen.ids, chosen.next_place
    prospects = mending.prospects(tx, ids[:AT_ONCE])
    return _Chosen(found, prospects, place is not None or len(ids) > AT_ONCE, found.wanted.up_to or 0)


def _groups(tx: Connection, fields: dict[str, str]) -> tuple[Asked, ErrorGroups]:
    found = read_filter(tx, fields)
    wanted = replace(found.wanted, status=EditStatus.FAILED.value, job_id=None)
    return found, mending.groups(tx, wanted)


def _fields(request: Request) -> dict[str, str]:
    group = request.query_params.get("group")
    return fields_of(request) | ({"group": group} if group is not None else {})


@page("/ops/failed-edits")
async def list_groups(request: Request) -> Response:
    """Why edits failed: by error, the most frequent first."""
    fields = fields_of(request)
    found, groups = await read(request, _groups, fields)
    notice, kind = _notice(request)
    return html(
        request,
        "failed_edits.html",
        here="/ops/edits",
        now=groups.now,
        notice=" ".join(found.faults) or notice,
        notice_kind="warn" if found.faults else kind,
        found=groups,
        fields=fields,
        query=found.query,
        faults=found.faults,
        most=mending.LOOKED_AT,
    )


def _notice(request: Request) -> tuple[str | None, str]:
    """What an act did, and how that looks: a warning where edits were left."""
    act, done = asked(request, "act") or "", asked(request, "done") or ""
    left, rest = asked(request, "left") or "0", asked(request, "rest") or "0"
    if act not in DONE or not all(_COUNT.fullmatch(count) for count in (done, left, rest)):
        return None, "good"
    notice = f"{int(done):,} {'edit is' if int(done) == 1 else 'edits are'} {DONE[act]}."
    if int(left):
        notice += f" {int(left):,} had changed or were locked elsewhere, and are left as they are."
    if int(rest):
        notice += (
            f" Then PostgreSQL did not answer in time: {int(rest):,} may not have been done. Do it again for the rest."
        )
    return notice, "warn" if int(left) or int(rest) else "good"


@page("/ops/failed-edits/mend")
async def show_chosen(request: Request) -> Response:
    """The failed edits of a filter: how many, what a requeue would overwrite, and the buttons."""
    return await _page(request, _fields(request))


async def _page(request: Request, fields: dict[str, str], notice: str | None = None, status: int = 200) -> Response:
    # Edits that fail after this moment are not among those that the operator sees and agrees to.
    found = await read(request, _choose, fields, None)
    prospects = found.prospects
    overwriting = requeues.of(prospects)
    return html(
        request,
        "mend.html",
        status,
        here="/ops/edits",
        now=prospects[0].edit.read_at if prospects else None,
        notice=notice or " ".join(found.asked.faults) or None,
        notice_kind="warn",
        fields=found.asked.fields,
        query=found.asked.query(),
        edits=[one.edit for one in prospects],
        errors=Counter((one.edit.error_code, one.edit.error_message) for one in prospects).most_common(),
        all_of=overwriting,
        named=NAMED,
        shown=SHOWN,
        more=found.more,
        up_to=found.up_to,
        mark=requeues.mark(prospects),
    )


@page("/ops/failed-edits/requeue", "POST")
async def requeue(request: Request) -> Response:
    """Requeue the failed edits that the operator saw, each if it overwrites just what the operator saw."""
    return await _act(request, "requeued")


@page("/ops/failed-edits/discard", "POST")
async def discard(request: Request) -> Response:
    """Reject the failed edits that the operator saw for good."""
    return await _act(request, "discarded")


async def _act(request: Request, act: str) -> Response:
    """In parts, each in a transaction of its own. If the filter means other edits by now, nothing is done."""
    given = await form(request)
    fields = {name: value for name, value in parse_qsl(given.get("filter", "")) if name in {*FIELDS, "group"}}
    up_to = number(given.get("up_to"))
    if up_to is None or not all(map(storable, fields.values())):
        return message(request, 400, "That did not work", "The form was incomplete. Open the page again.")
    found = await read(request, _choose, fields, up_to)
    if not found.prospects or requeues.mark(found.prospects) != given.get("seen"):
        return await _page(
            request, fields, "These edits or their posts have changed since you looked; look again.", 409
        )
    context, actor, done, left = context_of(request), operator(request), 0, 0
    so_far = requeues.Act(up_to)
    for part in requeues.chunks(found.prospects, mending.TOGETHER):
        try:
            mended = await _mend(context, act, part, actor, so_far)
        except Unavailable:
            if not done:
                raise
            break
        done, left = done + len(mended.done), left + len(mended.left)
        so_far.add(part, mended.done)
        context.ring(edits=mended.posts, webhooks=mended.webhooks)
    log.info("operator_decided", done=act, edits=done, left=left, by=actor.name)
    rest = len(found.prospects) - done - left
    counts = f"done={done}&left={left}" + (f"&rest={rest}" if rest else "")
    return RedirectResponse(f"/ops/failed-edits?act={act}&{counts}", 303)


async def _mend(context: Context, act: str, part: list[Prospect], actor: Actor, so_far: requeues.Act) -> Mended:
    """One part, in a transaction of its own."""
    if act == "requeued":
        seen = {one.edit.id: one.mark for one in part}
        return await context.write(mending.requeue, seen, actor, so_far, unsure=UNSURE)
    return await context.write(mending.discard, {one.edit.id: one.edit.status for one in part}, actor, unsure=UNSURE)
