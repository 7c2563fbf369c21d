"""Hold, resume and "publish now" of one post, by the buttons of its page."""

from typing import Final
from urllib.parse import quote

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of
from api.ops.forms import form, operator, with_lock_limit
from api.ops.frame import NoSuchError, message, named, number, page
from shared.domain.errors import Conflict, NotFound, RedraftError
from shared.domain.holds import Hold, fault_of_reason
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import publishing
from shared.store.acts import Actor
from shared.store.holds import Changed

UNSURE: Final = "PostgreSQL did not answer in time. It may have been done: look at the post first."
DONE: Final = {
    "held": "It is held: it does not go out until it is resumed.",
    "resumed": "It is resumed. If its time went by, it stays held as missed.",
    "published": "It is resumed, and goes out now if its time went by.",
    "let_go": "It goes out as soon as its edit is applied.",
}
CHANGED: Final = "Its hold has changed since you looked, and nothing was done. Open the page again."


def fault_of(reason: str) -> str | None:
    """What is wrong with the reason that an operator typed, as a sentence; None if it will do."""
    wrong = fault_of_reason(reason)
    return f"The reason {wrong}." if wrong else None


def mark(hold: Hold | None) -> str:
    """What a form says of the hold that the operator has seen."""
    return f"{hold.level.value} {hold.since.isoformat()}" if hold else ""


@page("/ops/posts/{post_id}/hold", "POST")
async def hold(request: Request) -> Response:
    """Hold the post, whatever has become of it since the operator looked: a stop is never refused for an edit."""
    fields, post_id, actor = await form(request), named(request, "post"), operator(request)
    reason = fields.get("reason", "").strip() or None
    if reason is not None and (wrong := fault_of(reason)) is not None:
        return message(request, 400, "That did not work", wrong)
    context = context_of(request)
    done = await context.write(with_lock_limit, take, post_id, actor, reason, unsure=UNSURE)
    if done is None:
        raise NoSuchError("post", post_id)
    if not done.posts:
        return message(request, 409, "It is not held", "It does not wait to go out. Look at the post.")
    context.ring(webhooks=done.webhooks)
    return _done(request, post_id, "held")


@page("/ops/posts/{post_id}/resume", "POST")
async def resume(request: Request) -> Response:
    """End the hold that the operator has seen. `missed=publish`: if its time went by, it goes out now."""
    fields, post_id, actor = await form(request), named(request, "post"), operator(request)
    seen, publish = fields.get("seen", ""), fields.get("missed") == "publish"
    context = context_of(request)
    try:
        done = await context.write(with_lock_limit, end, post_id, actor, publish, seen, unsure=UNSURE)
    except Conflict as error:
        return message(request, 409, "It is not resumed", f"{error}.")
    if done is None:
        raise NoSuchError("post", post_id)
    context.ring(webhooks=done.webhooks)
    return _done(request, post_id, "published" if publish else "resumed")


@page("/ops/posts/{post_id}/publish", "POST")
async def publish(request: Request) -> Response:
    """Let the post go out now, at the revision that the operator has seen."""
    fields, post_id, actor = await form(request), named(request, "post"), operator(request)
    context = context_of(request)
    try:
        await context.write(publishing.by_operator, post_id, actor, number(fields.get("seen")) or 0, unsure=UNSURE)
    except NotFound:
        raise NoSuchError("post", post_id) from None
    except RedraftError as error:
        if error.code not in {"conflict", "cannot_edit", "precondition_failed"}:
            raise
        return message(request, 409, "It is not published now", f"{error}.")
    context.ring(edits=[post_id])
    return _done(request, post_id, "let_go")


def take(tx: Connection, post_id: str, actor: Actor, reason: str | None) -> Changed | None:
    """Hold one post; None where there is no such post."""
    locked = posts_store.lock_posts(tx, [post_id], "wait")
    return holds_store.hold_posts(tx, locked.values(), actor, reason) if locked else None


def end(
    tx: Connection, post_id: str, actor: Actor, publish: bool, seen: str | None = None  # noqa: FBT001  -- `write` names no arguments
) -> Changed | None:  # fmt: skip
    """Resume one post; None where there is no such post. `seen`: the mark of the only hold that is ended.

    Raises Conflict for another hold, and where the post is to go out under the hold of its account or workspace.
    """
    locked = posts_store.lock_posts(tx, [post_id], "wait")
    if not locked:
        return None
    if seen is not None and mark(holds_store.effective(tx, [post_id]).get(post_id)) != seen:
        raise Conflict(CHANGED.removesuffix("."))
    done = holds_store.resume_posts(tx, locked.values(), actor, publish_missed=publish)
    for above in done.refused.values():
        raise Conflict(f"It cannot go out: its {above.level} is held; resume that first")
    return done


def _done(request: Request, post_id: str, done: str) -> Response:
    structlog.get_logger(__name__).info("operator_decided", done=done, subject=post_id, by=operator(request).name)
    return RedirectResponse(f"/ops/posts/{quote(post_id)}?done={done}", 303)
