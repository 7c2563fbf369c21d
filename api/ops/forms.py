"""What the forms of the operators' pages share: that one of our own pages sent them, and whose name is kept."""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request

from api.context import context_of
from api.http.problems import request_id
from api.ops import access
from shared.domain.errors import RedraftError
from shared.store import db
from shared.store import posts as posts_store
from shared.store.acts import Actor

T = TypeVar("T")

LOCK_WITHIN = 1.0
FORM_LIMIT = 10_000


class LockedElsewhereError(RedraftError):
    """503: somebody holds the post for longer than a page waits."""

    code = "unavailable"


class NotOursError(RedraftError):
    """403: no page of ours sent this."""

    code = "forbidden"


async def form(request: Request) -> dict[str, str]:
    """A form's fields, once it is sure that one of our own pages sent it. Raises RedraftError."""
    config, body = context_of(request).config, b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            break
    fields = dict(parse_qsl(body[:FORM_LIMIT].decode("utf-8", "replace")))
    if not access.from_here(request):
        raise NotOursError("This came from another site, and nothing was done. Open the page here and use its buttons.")
    if not access.token_holds(config, request.url.path, fields.get("token", "")):
        raise NotOursError("The page was open for too long, and nothing was done. Open it again and try once more.")
    return fields


def operator(request: Request) -> Actor:
    """Who it is that asks: the user of the pages' password, and the request's id."""
    return Actor(context_of(request).config.ops_user, None, request_id.get())


def with_lock_limit(tx: Connection, act: Callable[..., T], *args: object) -> T:
    """Less patient than the page itself, so that it can say who is waited for."""
    posts_store.wait_at_most(tx, LOCK_WITHIN)
    try:
        return act(tx, *args)
    except DBAPIError as error:
        if not db.lock_timed_out(error):
            raise
        raise LockedElsewhereError(
            "Somebody holds the post for too long; redraft doctor says who. Try again."
        ) from error
