"""Reads a request: its query, its body within a bound, its media type and coding, its JSON.

For headers see api/http/headers.py.
"""

import asyncio
import json
from collections.abc import Container
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import ClientDisconnect, Request

from api.http import headers
from api.http.refusals import PayloadTooLarge, UnsupportedEncoding, UnsupportedMediaType
from shared.domain.errors import Faults, InvalidRequest, printable
from shared.store.idempotency import Repeat

BODY_LIMIT = 128 * 1024
BULK_BODY_LIMIT = 2 * 1024 * 1024
BODY_WITHIN = 20.0

JSON_TYPES = ("application/json",)
PATCH_TYPES = ("application/json", "application/merge-patch+json")

REPLAYED = {"Idempotent-Replayed": "true"}
PARTS_MAX = 150_000
"""Brackets, braces, commas and colons in a body. A job of 10,000 items has 90,000; a body of 128 KiB has fewer.
The cost of parsing grows with them, and the parser lets no other thread run: 2 MiB of `[]` would block the event loop
for 0.4 s.
"""

DIGITS_MAX = 300
"""Digits of one number. The time to read a number grows with the square of its digits."""

TOO_DEEP = "The body is nested too deeply; send a flat JSON object"


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The body, at most `limit` bytes, within 20 s. Raises PayloadTooLarge before more than that is in memory."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:18]) > limit:
        raise PayloadTooLarge(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WITHIN):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise PayloadTooLarge(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise InvalidRequest(f"The body did not arrive within {BODY_WITHIN:.0f} s; send it at once") from None
    except ClientDisconnect:
        raise InvalidRequest("The body ended before it was complete; send it again") from None
    return b"".join(chunks)


PARAMETERS_AT_MOST = 100


def check_number_of_parameters(request: Request) -> None:
    """Raises InvalidRequest for more query parameters than any route knows: each unknown one costs an error."""
    if request.scope["query_string"].count(b"&") >= PARAMETERS_AT_MOST:
        raise InvalidRequest(f"A query has at most {PARAMETERS_AT_MOST} parameters here; send fewer")


def check_query(request: Request, known: Container[str] = ()) -> None:
    """Raises InvalidRequest for any query parameter that the route does not know: the client expects an effect."""
    if not request.scope["query_string"]:
        return
    faults = Faults()
    for name in dict.fromkeys(request.query_params.keys()):
        if name in known:
            continue
        shown = printable(name)
        advice = "leave it out, or send it in the body where that has it"
        faults.add("invalid_request", shown, f'"{shown}" is not a query parameter here; {advice}')
    faults.raise_if_any()


def flag(request: Request, name: str) -> bool:
    """A query parameter that says true or false; false where it is absent. Raises InvalidRequest."""
    if not request.scope["query_string"]:
        return False
    given = request.query_params.getlist(name)
    if len(given) > 1 or not {"true", "false"}.issuperset(given):
        faults = Faults()
        faults.add("invalid_request", name, f"{name} must be true or false, and stand there once")
        faults.raise_if_any()
    return given == ["true"]


def check_media_type(request: Request, accepted: tuple[str, ...]) -> None:
    """Raises UnsupportedMediaType unless the body is of an accepted type, UnsupportedEncoding if it is compressed."""
    codings = request.headers.getlist("content-encoding")
    if codings and any(coding.lower() != "identity" for coding in headers.elements(codings)):
        raise UnsupportedEncoding
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in accepted:
        raise UnsupportedMediaType(accepted)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequest(f"The field {name[:64]!r} is there twice; send each field once")
            seen.add(name)
    return found


def _no_constant(name: str) -> None:
    raise InvalidRequest(f"{name} is not JSON; send a number or null")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise ValueError
    return int(digits)


# Made once: json.loads would make a decoder for each body, which costs as much as decoding a small body.
_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_whole)


def parse_json(body: bytes) -> Any:
    """The JSON value of a body in UTF-8 (RFC 8259, 8.1). Raises InvalidRequest for a body that is no JSON, and for
    duplicate names, NaN and nesting that is too deep.
    """
    if sum(map(body.count, (b"[", b"{", b",", b":"))) > PARTS_MAX:
        raise InvalidRequest("The body holds more values than any request here needs; send fewer")
    try:
        return _DECODER.decode(body.decode())
    except RecursionError:
        raise InvalidRequest(TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; send a JSON object"
        ) from None
    except (UnicodeDecodeError, ValueError):
        raise InvalidRequest(
            "The body is not JSON in UTF-8 with numbers of a sane length; send a JSON object"
        ) from None


async def json_body(request: Request, types: tuple[str, ...] = JSON_TYPES) -> Any:
    """The parsed body of a route that takes BODY_LIMIT bytes of these media types."""
    content = await read_body(request)
    check_media_type(request, types)
    return parse_json(content)


def fingerprint(request: Request, body: Any) -> str:
    """SHA-256 of what a repeated request must have in common: method, path, parsed body and preconditions."""
    parts = [request.method, request.scope["path"], body, request.headers.getlist("if-match")]
    # Added only if it was sent: so the fingerprints of requests without it are the same as in earlier versions.
    parts += request.headers.getlist("if-none-match")
    try:
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        # The body is just less deep than the decoder's limit, and json.dumps starts a few frames deeper.
        raise InvalidRequest(TOO_DEEP) from None


def repeat_of(request: Request, api_key_id: str, body: Any) -> Repeat | None:
    """The request's Idempotency-Key and what the request is; None without the header. Raises InvalidRequest."""
    key = headers.idempotency_key(request)
    return None if key is None else Repeat(api_key_id, key, fingerprint(request, body))


async def sent_body(request: Request, otherwise: Any) -> Any:
    """The parsed body of a route whose fields may all be left out; `otherwise` where no body was sent."""
    content = await read_body(request)
    if not content:
        return otherwise
    check_media_type(request, JSON_TYPES)
    return parse_json(content)


# -- What routes name as parameters, each after the key: first the body, then the query.


async def _json_body(request: Request) -> Any:
    return await json_body(request)


async def _optional_body(request: Request) -> Any:
    return await sent_body(request, {})


async def _no_body(request: Request) -> Any:
    """The body of a route that takes no fields: none at all (None), or an empty JSON object."""
    body = await sent_body(request, ...)
    if body not in (..., {}):
        raise InvalidRequest("This route takes no fields; send no body, or {}")
    return None if body is ... else body


_SAFE = frozenset({"GET", "HEAD"})


async def _no_query(request: Request) -> None:
    check_query(request)
    if request.method not in _SAFE:
        headers.refuse_preconditions(request)


async def _only_preconditions(request: Request) -> headers.Preconditions:
    check_query(request)
    return headers.preconditions(request)


JsonBody = Annotated[Any, Depends(_json_body)]
OptionalBody = Annotated[Any, Depends(_optional_body)]
NoBody = Annotated[Any, Depends(_no_body)]
NoQuery = Annotated[None, Depends(_no_query)]
"""No query, and no precondition of a write."""
OnlyPreconditions = Annotated[headers.Preconditions, Depends(_only_preconditions)]
"""No query; the preconditions are for the route to judge."""
