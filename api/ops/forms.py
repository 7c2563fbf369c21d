"""What all forms of the operators' pages share: the check that our own page sent them, and the operator's name."""

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
    """503: the post stays locked elsewhere for longer than LOCK_WITHIN."""

    code = "unavailable"


class NotOursError(RedraftError):
    """403: the form was not sent by one of our own pages."""

    code = "forbidden"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our own pages sent. Raises NotOursError for any other."""
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
    """Who acts: the user who logged in, and the request's id."""
    return Actor(request.state.login.user, None, request_id.get())


def with_lock_limit(tx: Connection, act: Callable[..., T], *args: object) -> T:
    """`act(tx, *args)`, which waits LOCK_WITHIN s for a lock: less than the page waits, so that it can say why."""
    posts_store.wait_at_most(tx, LOCK_WITHIN)
    try:
        return act(tx, *args)
    except DBAPIError as error:
        if not db.lock_timed_out(error):
            raise
        raise LockedElsewhereError(
            "The post is locked elsewhere; redraft doctor says by what. Try again later."
        ) from error
