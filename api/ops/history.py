"""One edit's history on the operators' pages, with requeue and discard."""

from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of
from api.ops.forms import form, operator, with_lock_limit
from api.ops.frame import asked, html, named, page, read_named
from api.ops.redis_answers import of_redis
from shared.domain import edit_histories, waits
from shared.domain.edit_histories import Prospect
from shared.domain.posts import Post
from shared.domain.waits import Lock, Waits
from shared.store import acts as acts_store
from shared.store import keys, locks, operator_actions
from shared.store import posts as posts_store
from shared.store.acts import Recorded
from shared.store.keys import Account
from shared.store.operator_actions import Done, NotDone

MOST = 50

log = structlog.get_logger(__name__)


DONE: Final = {
    "requeued": "It is queued again. A worker applies it within seconds.",
    "discarded": "It is discarded, for good.",
}


class _Edit(NamedTuple):
    """All that an edit's page shows. `acts`: newest first."""

    prospect: Prospect
    acts: list[Recorded]
    post: Post | None
    account: Account | None
    locked: dict[str, Lock]


@page("/ops/edits/{edit_id}")
async def show_edit(request: Request) -> Response:
    """One edit's history, and what a requeue of a failed edit would do."""
    return await _edit_page(request, DONE.get(asked(request, "done") or ""))


async def _edit_page(request: Request, notice: str | None = None, kind: str = "good", status: int = 200) -> Response:
    found = await read_named(request, "edit", _edit)
    edit = found.prospect.edit
    broker = await of_redis() if edit.finalized_at is None else waits.UNKNOWN
    return html(
        request,
        "edit.html",
        status,
        now=edit.read_at,
        notice=notice,
        notice_kind=kind,
        edit=edit,
        advice=waits.advice(edit, Waits(found.locked, broker)),
        milestones=edit_histories.milestones(edit),
        **found._asdict(),
    )


def _edit(tx: Connection, edit_id: str) -> _Edit | None:
    prospect = operator_actions.prospect(tx, edit_id)
    if prospect is None:
        return None
    post = posts_store.read_posts(tx, [prospect.edit.post_id])[0].get(prospect.edit.post_id)
    account = keys.account(tx, post.account_id) if post else None
    return _Edit(prospect, acts_store.of(tx, edit_id, MOST), post, account, locks.of_posts(tx, [prospect.edit.post_id]))


@page("/ops/edits/{edit_id}/requeue", "POST")
async def requeue(request: Request) -> Response:
    """Requeue a failed edit, if it overwrites just what the operator saw."""
    fields = await form(request)
    return await _act(request, "requeued", operator_actions.requeue, operator(request), fields.get("seen", ""))


@page("/ops/edits/{edit_id}/discard", "POST")
async def discard(request: Request) -> Response:
    """Reject a failed or queued edit for good."""
    await form(request)
    return await _act(request, "discarded", operator_actions.discard, operator(request))


async def _act(request: Request, done: str, act: Callable[..., Done | NotDone], *args: object) -> Response:
    context, edit_id = context_of(request), named(request, "edit")
    unsure = "PostgreSQL did not answer in time. It may have been done: look at the edit before you try again."
    result = await context.write(with_lock_limit, act, edit_id, *args, unsure=unsure)
    if isinstance(result, NotDone):
        return await _edit_page(request, f"{result.why}.", "warn", 409)
    log.info("operator_decided", done=done, edit_id=edit_id, post_id=result.post_id, by=request.state.login.user)
    context.ring(edits=[result.post_id], webhooks=result.webhooks)
    return RedirectResponse(f"/ops/edits/{quote(edit_id)}?done={done}", 303)
