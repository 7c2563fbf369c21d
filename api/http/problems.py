"""The one table of domain errors -> HTTP status, code and headers, in one JSON form (docs/api.md)."""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Final, NamedTuple

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from api.http import pagination, refusals
from api.http.json_answer import JsonAnswer
from shared.domain import errors
from shared.domain.errors import RedraftError
from shared.domain.lifecycle import etag
from shared.settings import settings

log = structlog.get_logger(__name__)

CREATE = "to create posts, POST to /v1/posts/video or /v1/posts/slideshow"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is served. api/http/request_id.py sets it."""

refused: ContextVar[str] = ContextVar("refused", default="")
"""The code of the error that the served request is answered with, for its line in the log."""

STATUS: Mapping[str, int] = {
    "invalid_request": 400,
    "missing_required_fields": 400,
    "invalid_caption": 400,
    "invalid_scheduled_time": 400,
    "invalid_timezone": 400,
    "invalid_content": 400,
    "sound_not_supported": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "cannot_edit": 409,
    "conflict": 409,
    "discarded": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_key_reused": 422,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
}


Code = StrEnum("Code", {code.upper(): code for code in STATUS})  # type: ignore[misc]  # as many members as the table
"""The codes of errors, for documents and clients."""


class Refusal(NamedTuple):
    """One status of errors, for the document: its meaning, the headers that it may carry, the codes that go with it."""

    meaning: str
    headers: tuple[str, ...]
    codes: tuple[str, ...]


OF_EDIT = ("Edit-Id", "Location", "Preference-Applied", "Idempotent-Replayed")
"""The headers of the answer to a PATCH."""
REFUSALS: Mapping[int, Refusal] = {
    status: Refusal(meaning, headers, tuple(code for code, of in STATUS.items() if of == status))
    for status, meaning, headers in (
        (400, "The request is malformed", ()),
        (401, "No key, not one of ours, or one that has expired", ("WWW-Authenticate",)),
        (403, "The key lacks the scope", ()),
        (404, "Not there, or not yours", OF_EDIT),
        # Of no operation, since it answers methods that none has: it stands among the components only.
        (405, "The path does not take that method", ("Allow",)),
        (409, "Its state does not allow it", OF_EDIT),
        (412, "It has changed since, or If-Match or If-None-Match can never let it pass", ("ETag", *OF_EDIT)),
        (413, "The body is too large", ()),
        (415, "The body is of another media type, or is packed", ("Accept-Patch", "Accept-Encoding")),
        (422, "The Idempotency-Key was used for another request", ()),
        (429, "The key has spent its limit", ("Retry-After",)),
        (500, "A bug of ours, or an edit that spent its attempts", ("Edit-Id", "Location", "Idempotent-Replayed")),
        (
            503,
            "PostgreSQL is out of reach or takes no writes, too many edits wait, or your request is being recorded",
            ("Retry-After", "Edit-Id", "Location"),
        ),
    )
}
"""Every status of errors."""


def refuses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for errors of these statuses, which the document describes once, among its components."""
    return {status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses}


OPEN = refuses(400, 500)
"""What every route may answer, and LOCKED what every route with a key may answer."""
LOCKED = refuses(400, 401, 403, 429, 500, 503)


def headers_of(error: RedraftError) -> dict[str, str]:
    """The headers that go with an error. Edit-Id and Location name the edit, if there is a row of one."""
    headers: dict[str, str] = {}
    match error:
        case refusals.Unauthenticated():
            headers["WWW-Authenticate"] = "Bearer"
        case refusals.MethodNotAllowed():
            headers["Allow"] = ", ".join(error.allowed)
        case refusals.UnsupportedMediaType() if "application/merge-patch+json" in error.accepted:
            headers["Accept-Patch"] = ", ".join(error.accepted)
        case refusals.UnsupportedEncoding():
            headers["Accept-Encoding"] = "identity"
        case errors.RateLimited() | errors.Unavailable():
            headers["Retry-After"] = str(error.retry_after)
        case errors.PreconditionFailed() if error.revision is not None:
            headers["ETag"] = etag(error.revision)
    if error.edit_id is not None:
        headers |= {"Edit-Id": error.edit_id, "Location": f"/v1/edits/{error.edit_id}"}
    return headers


# Behind a space: what is quoted was sent by the client. No other place writes messages, so none can forget the prefix.
_PATH: Final = re.compile(r"(?<= )/(?=(?:v1|docs)\b)")


def _as_clients_see(message: str) -> str:
    """The message with the paths that clients ask for: a proxy may strip a prefix (REDRAFT_ROOT_PATH)."""
    root = settings().root_path
    return _PATH.sub(lambda _: f"{root}/", message) if root else message


def shown(error: RedraftError) -> dict[str, Any]:
    """What an error says, wherever it stands in an answer. `details` only where they help."""
    content: dict[str, Any] = {"code": error.code, "message": _as_clients_see(error.message)}
    if error.details:
        content["details"] = [{"field": detail.field, "message": detail.message} for detail in error.details]
    return content


def response(error: RedraftError, extra: Mapping[str, str] | None = None) -> Response:
    """The answer for an error."""
    refused.set(error.code)
    said = shown(error)
    content = {"code": error.code, "message": said["message"], "requestId": request_id.get()} | said
    return JsonAnswer({"error": content}, STATUS.get(error.code, 500), headers_of(error) | dict(extra or {}))


async def on_redraft_error(request: Request, error: RedraftError) -> Response:
    """Answers an expected error. OPTIONS gets the headers that a wrong method would get."""
    if isinstance(error, refusals.MethodNotAllowed) and request.method == "OPTIONS":
        return Response(status_code=204, headers=headers_of(error))
    return response(error)


async def on_http_error(request: Request, error: HTTPException) -> Response:
    """Answers what the framework refuses: an unknown route, a wrong method, a body that it cannot read."""
    path: str = request.scope["path"]
    if error.status_code == 404:
        shorter = path.rstrip("/")
        slashed = shorter != path and any(_at(request, shorter, method) for method in METHODS)
        advice = f"leave out the slash at its end: {errors.printable(shorter)}" if slashed else "see /docs"
        return response(errors.NotFound(f"There is nothing at {errors.printable(path)}; {advice}"))
    if error.status_code == 405:
        instead = CREATE if (request.method, path) == ("POST", "/v1/posts") else None
        return await on_redraft_error(request, refusals.MethodNotAllowed(allowed(request), instead))
    return response(errors.InvalidRequest(str(error.detail) or "The request could not be read"))


def allowed(request: Request) -> list[str]:
    """The methods that the app's routes have for the request's path."""
    found = [method for method in METHODS if _at(request, request.scope["path"], method)]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def _at(request: Request, path: str, method: str) -> bool:
    """Whether a route of the app has this path and this method."""
    # Starlette remembers in the scope which part of the path is left.
    asked = {**request.scope, "path": path, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in request.app.router.routes)


async def on_invalid_query(request: Request, error: RequestValidationError) -> Response:
    """Answers a query that the model of its route does not take. FastAPI reads nothing else by models here."""
    return response(pagination.refusal(request, error.errors()))


async def on_surprise(request: Request, error: Exception) -> Response:
    """Answers a bug: the client gets the request id, the log gets the rest."""
    log.error("unexpected_error", path=errors.printable(request.scope["path"], 300), exc_info=error)
    return response(errors.Internal())


HANDLERS: Mapping[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    RedraftError: on_redraft_error,
    HTTPException: on_http_error,
    RequestValidationError: on_invalid_query,
    Exception: on_surprise,
}
"""The handler of each kind of error, the narrower kinds first."""

_FIRST: Mapping[int, str] = {status: code for code, status in reversed(list(STATUS.items()))}


def code_of(status: int) -> str | None:
    """The code of the answer that was just given, for its line in the log; None if nothing was refused.

    It is the error's own code, else the one that goes with the status: pages for people have no code. 499 is a client
    that went away before the answer.
    """
    if status < 400:
        return None
    return refused.get() or ("client_gone" if status == 499 else _FIRST.get(status, "http_error"))
