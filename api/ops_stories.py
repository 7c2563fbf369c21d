"""The operators' stories: one edit's, with requeue and discard, and one post's (SPEC 3.9, 8)."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, quote

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api import ops_entry
from api.context import context_of, storable
from api.ops_frame import asked, asked_for, html, message, page, read
from shared import db, queue, stories
from shared.errors import RedraftError, printable
from shared.lifecycle import PostFacts, Status
from shared.posts import Post
from shared.store import operations, overview
from shared.store import posts as posts_store
from shared.store.operations import Done, NotDone
from shared.stories import EditStory

FEW, MOST = 10, 50
LOCK_WITHIN = 1.0
FORM_LIMIT = 10_000

log = structlog.get_logger(__name__)


class HeldError(RedraftError):
    """503: somebody holds the post for longer than a page waits."""

    code = "unavailable"


DONE: Final = {
    "requeued": "It is queued again: its worker takes it within seconds.",
    "discarded": "It is discarded, for good.",
}


@page("/ops/edits/{edit_id}")
async def show_edit(request: Request) -> Response:
    """One edit's story, and, where it failed, what a requeue would do."""
    return await _edit_page(request, DONE.get(asked(request, "done") or ""))


async def _edit_page(request: Request, notice: str | None = None, kind: str = "good", status: int = 200) -> Response:
    edit_id = request.path_params["edit_id"]
    prospect = await read(request, operations.prospect, edit_id) if storable(edit_id) else None
    if prospect is None:
        return message(request, 404, "No such edit", f"There is no edit {printable(edit_id)}.")
    edit, config, path = prospect.edit, context_of(request).config, f"/ops/edits/{edit_id}"
    return html(
        request,
        "edit.html",
        status,
        here="/ops/edits",
        now=edit.read_at,
        notice=notice,
        notice_kind=kind,
        edit=edit,
        prospect=prospect,
        advice=stories.advice(edit),
        milestones=stories.milestones(edit),
        requeue_token=ops_entry.token(config, f"{path}/requeue"),
        discard_token=ops_entry.token(config, f"{path}/discard"),
    )


@page("/ops/edits/{edit_id}/requeue", "POST")
async def requeue(request: Request) -> Response:
    """Requeue a failed edit, if all that it overwrites is what the operator saw."""
    form = await _form(request)
    return await _act(request, "requeued", operations.requeue, form.get("seen", ""))


@page("/ops/edits/{edit_id}/discard", "POST")
async def discard(request: Request) -> Response:
    """End a failed or queued edit for good."""
    await _form(request)
    return await _act(request, "discarded", operations.discard)


async def _act(request: Request, done: str, act: Callable[..., Done | NotDone], *args: object) -> Response:
    context, edit_id = context_of(request), request.path_params["edit_id"]
    if not storable(edit_id):
        return message(request, 404, "No such edit", f"There is no edit {printable(edit_id)}.")
    unsure = "PostgreSQL did not answer in time. It may have been done: look at the edit before you try again."
    ended = await context.write(_patiently, act, edit_id, *args, unsure=unsure)
    if isinstance(ended, NotDone):
        return await _edit_page(request, f"{ended.why}.", "warn", 409)
    log.info("operator_decided", done=done, edit_id=edit_id, post_id=ended.post_id, by=context.config.ops_user)
    context.ring(queue.ring_edits, [ended.post_id])
    if ended.told:
        context.ring(queue.ring_webhooks, ended.told)
    return RedirectResponse(f"/ops/edits/{quote(edit_id)}?done={done}", 303)


def _patiently(tx: Connection, act: Callable[..., Done | NotDone], *args: object) -> Done | NotDone:
    """Less patient than the page itself, so that it can say who is waited for."""
    posts_store.wait_at_most(tx, LOCK_WITHIN)
    try:
        return act(tx, *args)
    except DBAPIError as error:
        if not db.lock_timed_out(error):
            raise
        raise HeldError("Somebody holds the post for too long; redraft doctor says who. Try again.") from error


async def _form(request: Request) -> dict[str, str]:
    """A form's fields, once it is sure that one of our own pages sent it. Raises RedraftError."""
    config, body = context_of(request).config, b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            break
    fields = dict(parse_qsl(body[:FORM_LIMIT].decode("utf-8", "replace")))
    if not ops_entry.from_here(request):
        raise _NotOursError(
            "This came from another site, and nothing was done. Open the page here and use its buttons."
        )
    if not ops_entry.token_holds(config, request.url.path, fields.get("token", "")):
        raise _NotOursError("The page was open for too long, and nothing was done. Open it again and try once more.")
    return fields


class _NotOursError(RedraftError):
    code = "forbidden"


@page("/ops/posts/{post_id}")
async def show_post(request: Request) -> Response:
    """One post's story: its edits and its tries in one line of time."""
    post_id = request.path_params["post_id"]
    found = await read(request, _post, post_id) if storable(post_id) else None
    if found is None:
        return message(request, 404, "No such post", f"There is no post {printable(post_id)}.")
    post, now, edits, tries = found
    late = (now - post.facts.scheduled_time).total_seconds() > overview.LATE_AFTER and _waits(post.facts)
    return html(
        request,
        "post.html",
        now=now,
        post=post,
        edits=edits[:FEW],
        tries=tries,
        late=late,
        advice=_advice(post.facts, late=late, reason=post.failure_reason),
        story=_story(post, edits, tries),
        cut=len(edits) >= MOST or len(tries) >= MOST,
    )


def _post(tx: Connection, post_id: str) -> tuple[Post, datetime, list[EditStory], list[overview.Try]] | None:
    found, now = posts_store.read_posts(tx, [post_id])
    if now is None:
        return None
    edits = operations.edits(tx, post_id=post_id, limit=MOST)
    return found[post_id], now, edits, overview.tries(tx, post_id, MOST)


def _waits(facts: PostFacts) -> bool:
    return facts.status in (Status.GENERATED, Status.PENDING_RENDER) and not facts.deleted


def _advice(facts: PostFacts, *, late: bool, reason: str | None) -> str:
    if facts.deleted:
        return "Nothing to do: a client deleted it, and it never goes out."
    if facts.status is Status.POSTED:
        return "Nothing to do: it went out."
    if facts.status is Status.FAILED:
        look = " Look first whether it is out there." if reason == "publish_outcome_unknown" else ""
        return f"It does not go out.{look} `redraft posts retry {facts.id}` makes it due again."
    if late:
        return "It should have gone out: redraft doctor looks for the reason."
    return "Nothing to do: it waits for its time."


def _story(
    post: Post, edits: list[EditStory], tries: list[overview.Try]
) -> list[tuple[datetime, str, str, str | None]]:
    """(when, how it looks, what happened, where to read on), the oldest first."""
    kinds = {"applied": "good", "failed": "bad", "rejected": "warn", "done": "good", "refused": "bad", "unknown": "bad"}
    told: list[tuple[datetime, str, str, str | None]] = [(post.created_at, "", "created", None)]
    for edit in edits:
        link, name = f"/ops/edits/{quote(edit.id)}", f"{asked_for(edit.changes)} by {edit.requested_by}"
        if edit.finalized_at is None:
            told.append((edit.created_at, "warn", f"edit accepted, and waiting: {name}", link))
        else:
            told.append((edit.finalized_at, kinds.get(edit.status, ""), f"edit {edit.status}: {name}", link))
    for one in tries:
        told.append((one.started_at, "", f"publish, try {one.number}", None))
        if one.finished_at is not None:
            outcome = (one.outcome or "").replace("_", " ")
            said = f": {one.message}" if one.message else ""
            told.append((one.finished_at, kinds.get(one.outcome or "", "warn"), f"publish {outcome}{said}", None))
    return sorted(told, key=lambda one: one[0])
