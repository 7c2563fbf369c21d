"""Holds on the operators' pages: what is held, and the buttons that hold and resume."""

from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of, storable
from api.holds import UNSURE, resume_scope
from api.ops import post_holds
from api.ops.forms import form, operator, with_lock_limit
from api.ops.frame import asked, html, message, page, read
from shared.domain.errors import Conflict, printable
from shared.domain.holds import REASON_MAX
from shared.store import hold_lists, scope_holds
from shared.store import posts as posts_store
from shared.store.hold_lists import HeldPost, HeldScope

SHOWN: Final = 200
DONE: Final = {
    "held": ("It is held: no post of it goes out that a publish had not claimed already.", "good"),
    "resumed": ("It is resumed. Posts whose time went by stay held, and are listed as missed.", "good"),
    "published": ("It is resumed. Posts whose time went by go out now.", "good"),
    "left": ("Nothing was done: it does not wait to go out.", "warn"),
}

log = structlog.get_logger(__name__)


def _listed(tx: Connection) -> tuple[list[HeldScope], list[HeldPost], datetime]:
    return hold_lists.held_scopes(tx, SHOWN + 1), hold_lists.held_posts(tx, SHOWN + 1), posts_store.clock(tx)


@page("/ops/holds")
async def list_holds(request: Request) -> Response:
    """Held accounts and workspaces, posts that are held by themselves, and the forms."""
    scopes, posts, now = await read(request, _listed)
    notice, kind = DONE.get(asked(request, "done") or "", (None, "good"))
    return html(
        request,
        "holds.html",
        now=now,
        notice=notice,
        notice_kind=kind,
        scopes=scopes[:SHOWN],
        posts=posts[:SHOWN],
        truncated=max(len(scopes), len(posts)) > SHOWN,
        shown=SHOWN,
        reason_max=REASON_MAX,
    )


@page("/ops/holds/hold", "POST")
async def hold(request: Request) -> Response:
    """Hold a post, an account or a workspace, by its id."""
    fields, actor, context = await form(request), operator(request), context_of(request)
    given, reason = fields.get("id", "").strip(), fields.get("reason", "").strip() or None
    if not storable(given):
        return message(request, 400, "That did not work", "That is no id. Open the page again.")
    if reason is not None and (wrong := post_holds.fault_of(reason)) is not None:
        return message(request, 400, "That did not work", wrong)
    scope = await read(request, hold_lists.named, given)
    if scope is not None:
        taken = await context.write(with_lock_limit, scope_holds.take, scope, actor, reason, unsure=UNSURE)
        webhooks, done = taken.webhooks, "held"
    else:
        changed = await context.write(with_lock_limit, post_holds.take, given, actor, reason, unsure=UNSURE)
        if changed is None:
            return _unknown(request, given)
        webhooks, done = changed.webhooks, "held" if changed.posts else "left"
    context.ring(webhooks=webhooks)
    log.info("operator_decided", done=done, subject=given, by=actor.name)
    return RedirectResponse(f"/ops/holds?done={done}", 303)


@page("/ops/holds/resume", "POST")
async def resume(request: Request) -> Response:
    """Resume a post, an account or a workspace, by its id. `missed=publish`: what missed its time goes out now."""
    fields, actor, context = await form(request), operator(request), context_of(request)
    given, publish = fields.get("id", "").strip(), fields.get("missed") == "publish"
    if not storable(given):
        return message(request, 400, "That did not work", "The form was incomplete. Open the page again.")
    scope = await read(request, hold_lists.named, given)
    if scope is not None:
        if publish and await read(request, scope_holds.above, scope) is not None:
            return message(request, 409, "Its workspace is held", "Resume the workspace first.")
        await resume_scope(context, scope, actor, publish=publish)
    else:
        try:
            changed = await context.write(with_lock_limit, post_holds.end, given, actor, publish, unsure=UNSURE)
        except Conflict as error:
            return message(request, 409, "It is not resumed", f"{error}.")
        if changed is None:
            return _unknown(request, given)
        context.ring(webhooks=changed.webhooks)
    log.info("operator_decided", done="resumed", subject=given, publish=publish, by=actor.name)
    return RedirectResponse(f"/ops/holds?done={'published' if publish else 'resumed'}", 303)


def _unknown(request: Request, given: str) -> Response:
    return message(request, 404, "Nothing to hold", f"There is no post, account or workspace {printable(given)}.")
