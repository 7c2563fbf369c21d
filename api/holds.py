"""PUT and DELETE of a hold: of a post, of an account, of the key's workspace (docs/lifecycle.md)."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api import posts
from api.context import Context, Here, Mover, Unsure, Writer, storable
from api.http import headers, pagination, problems
from api.http.json_answer import JsonAnswer
from api.http.problems import request_id
from api.http.reading import NoQuery, OptionalBody
from api.models.holds import HoldReport, NewHold, Resumed, Resumption
from api.models.openapi import takes
from shared.domain.body_reading import read
from shared.domain.errors import Conflict, Detail, Faults, NotFound, Unavailable
from shared.domain.holds import Hold
from shared.domain.lifecycle import ClaimKind
from shared.domain.posts import Post
from shared.store import creation as creation_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import reads, scope_holds
from shared.store.acts import Actor
from shared.store.keys import Key
from shared.store.scope_holds import PAUSE, Scope, Step, Taken

router = APIRouter(tags=["holds"], responses=problems.LOCKED)

UNSURE: Final = "The hold may have changed; send this again: a repeat does no harm"
OF_POST: Final = f"{posts.ONE}/hold"
OF_ACCOUNT: Final = "/v1/accounts/{account_id}/hold"
OF_WORKSPACE: Final = "/v1/hold"

_PUT: Final[dict[str, Any]] = {"response_model": HoldReport, "openapi_extra": takes(body=NewHold)}
_DELETE: Final[dict[str, Any]] = {"response_model": Resumed, "openapi_extra": takes(body=Resumption)}
_OF_ONE: Final = problems.refuses(404, 409, 413, 415)
_OF_MANY: Final = problems.refuses(409, 413, 415)

Missed = Annotated[Resumption, Query()]


async def _resume_body(request: Request, body: OptionalBody) -> object:
    """The body of a resume, whose query says its field once."""
    faults = Faults()
    pagination.repeated(Resumption, request, faults)
    faults.raise_if_any()
    headers.refuse_preconditions(request)
    return body


Resume = Annotated[Any, Depends(_resume_body)]


@router.put(OF_POST, responses=_OF_ONE, **_PUT)
async def hold_post(post_id: str, context: Here, key: Writer, body: OptionalBody, _: NoQuery) -> Response:
    """Hold a post that waits. No publish claims it until it is resumed; edits go on. A repeat may change the reason."""
    if not storable(post_id):
        raise NotFound.post(post_id)
    reason = read(NewHold, body).reason
    taken = await context.write(take_of_post, key, post_id, reason, request_id.get(), unsure=UNSURE)
    return _held(context, taken)


@router.delete(OF_POST, responses=_OF_ONE, **_DELETE)
async def resume_post(post_id: str, context: Here, key: Writer, body: Resume, query: Missed) -> Response:
    """Resume a post. One whose time has gone by stays held, with reason missed, until an edit gives it a new time.
    Missed publish lets it go out now. Send it in the query where a proxy drops bodies of DELETE.
    """
    if not storable(post_id):
        raise NotFound.post(post_id)
    publish = _publishes(body, query)
    hold, done = await context.write(end_of_post, key, post_id, publish, request_id.get(), unsure=UNSURE)
    context.ring(webhooks=done.webhooks)
    released = len(done.posts) if publish else 0
    return _resumed(hold, missed=int(hold is not None and hold.missed), released=released)


@router.put(OF_ACCOUNT, responses=_OF_ONE, **_PUT)
async def hold_account(account_id: str, context: Here, key: Mover, body: OptionalBody, _: NoQuery) -> Response:
    """Hold an account: no publish claims a post of it until it is resumed. A repeat may change the reason."""
    return await _take(context, key, await _account(context, key, account_id), body)


@router.delete(OF_ACCOUNT, responses=_OF_ONE, **_DELETE)
async def resume_account(
    account_id: str, context: Here, key: Mover, body: Resume, query: Missed
) -> Response:  # fmt: skip
    """Resume an account. Its posts whose time has gone by stay held by themselves, with reason missed. Missed publish
    lets all missed posts of the account go out now.
    """
    publish = _publishes(body, query)
    return await _end(context, key, await _account(context, key, account_id), publish=publish)


@router.put(OF_WORKSPACE, responses=_OF_MANY, **_PUT)
async def hold_workspace(context: Here, key: Mover, body: OptionalBody, _: NoQuery) -> Response:
    """Hold the workspace: no publish claims a post of it until it is resumed. A repeat may change the reason."""
    return await _take(context, key, Scope(key.workspace_id), body)


@router.delete(OF_WORKSPACE, responses=_OF_MANY, **_DELETE)
async def resume_workspace(context: Here, key: Mover, body: Resume, query: Missed) -> Response:
    """Resume the workspace. Its posts whose time has gone by stay held by themselves, with reason missed. Missed
    publish lets all missed posts of the workspace go out now.
    """
    return await _end(context, key, Scope(key.workspace_id), publish=_publishes(body, query))


def _publishes(body: object, query: Resumption) -> bool:
    return "publish" in (query.missed, read(Resumption, body).missed)


def _actor(key: Key, asked_by: str) -> Actor:
    return Actor(key.name, key.id, asked_by)


# Posts


def take_of_post(tx: Connection, key: Key, post_id: str, reason: str | None, asked_by: str) -> Taken:
    """Lock, recheck, hold. Raises NotFound, Conflict."""
    post = _locked(tx, key, post_id)
    done = holds_store.hold_posts(tx, [post], _actor(key, asked_by), reason)
    if not done.posts:
        status = post.facts.status.value
        message = "Only posts with status 'generated' or 'pending_render' can be held"
        raise Conflict(message, details=[Detail("status", status)])
    hold = holds_store.of(tx, [post_id])[post_id].own
    assert hold is not None  # noqa: S101  -- it was written above
    going_out = [post_id] if post.facts.claim is ClaimKind.PUBLISH else []
    return Taken(hold, going_out, len(going_out), done.webhooks)


def end_of_post(
    tx: Connection, key: Key, post_id: str, publish: bool, asked_by: str  # noqa: FBT001  -- `write` names no arguments
) -> tuple[Hold | None, holds_store.Changed]:  # fmt: skip
    """Lock, recheck, resume; what holds the post then. Raises NotFound, Conflict."""
    post = _locked(tx, key, post_id)
    done = holds_store.resume_posts(tx, [post], _actor(key, asked_by), publish_missed=publish)
    if (above := done.refused.get(post_id)) is not None:
        raise _held_above(above, f"Post {post_id}")
    return holds_store.effective(tx, [post_id]).get(post_id), done


def _locked(tx: Connection, key: Key, post_id: str) -> Post:
    """The workspace's post, under its lock. Another workspace's post is never locked: it could notice even a lock."""
    if reads.post(tx, key.workspace_id, post_id) is None:
        raise NotFound.post(post_id)
    post = posts_store.lock_posts(tx, [post_id], "wait")[post_id]
    if post.facts.deleted:
        raise NotFound.post(post_id)
    return post


# Accounts and workspaces


async def _account(context: Context, key: Key, account_id: str) -> Scope:
    if not storable(account_id):
        raise NotFound.account(account_id)
    known, _ = await context.read(creation_store.platforms, key.workspace_id, [account_id])
    if account_id not in known:
        raise NotFound.account(account_id)
    return Scope(key.workspace_id, account_id)


async def _take(context: Context, key: Key, scope: Scope, body: object) -> Response:
    reason = read(NewHold, body).reason
    actor = _actor(key, request_id.get())
    return _held(context, await context.write(scope_holds.take, scope, actor, reason, unsure=UNSURE))


async def _end(context: Context, key: Key, scope: Scope, *, publish: bool) -> Response:
    if publish and (above := await context.read(scope_holds.above, scope)) is not None:
        raise _held_above(above, f"Account {scope.id}")
    total = await resume_scope(context, scope, _actor(key, request_id.get()), publish=publish)
    return _resumed(await held_above(context, scope), missed=total.missed, released=total.released)


async def held_above(context: Context, scope: Scope) -> Hold | None:
    """The hold of an account's workspace, behind a resume. Raises Unsure."""
    try:
        return await context.read(scope_holds.above, scope)
    except Unavailable as error:
        raise Unsure(UNSURE) from error


async def resume_scope(context: Context, scope: Scope, actor: Actor, *, publish: bool) -> Step:
    """All transactions of a resume, each committed before the next one; their sum.

    Raises Unavailable when nothing was done, or with a message that says how far it came.
    """
    works = scope_holds.resuming(scope, actor, publish_missed=publish)
    work, begun = next(works), False
    while True:
        try:
            step = await context.write(work, unsure=UNSURE)
        except Unavailable as error:
            if begun:
                raise Unsure(UNSURE) from error
            raise
        begun = True
        context.ring(webhooks=step.webhooks)
        try:
            work = works.send(step)
        except StopIteration as ended:
            total: Step = ended.value
            return total
        if step.waits:
            await asyncio.sleep(PAUSE)


def _held_above(above: Hold, what: str) -> Conflict:
    details = [Detail("held", above.level.value)]
    return Conflict(f"{what} cannot go out: its {above.level} is held; resume that first", details=details)


# Answers


def _held(context: Context, taken: Taken) -> Response:
    context.ring(webhooks=taken.webhooks)
    shown = {
        "held": taken.hold.public(),
        "goingOut": taken.going_out,
        "goingOutTotal": taken.going_out_total,
    }
    return JsonAnswer(shown)


def _resumed(hold: Hold | None, *, missed: int, released: int) -> Response:
    shown = {"held": hold and hold.public(), "missed": missed, "released": released}
    return JsonAnswer(shown)
