"""Reading a request: its body within a bound, its media type, JSON, and the headers that mean something (SPEC 4)."""

import asyncio
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from starlette.requests import ClientDisconnect, Request

from shared.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

BODY_LIMIT = 128 * 1024
BULK_BODY_LIMIT = 2 * 1024 * 1024
BODY_WITHIN = 20.0

JSON_TYPES = ("application/json",)
PATCH_TYPES = ("application/json", "application/merge-patch+json")

REPLAYED = {"Idempotent-Replayed": "true"}
PARTS_MAX = 150_000
"""Brackets, braces, commas and colons in a body. A job of 10,000 items has 90,000; nothing that fits 128 KiB has more.
They are what parsing costs, and the parser lets no other thread run meanwhile: 2 MiB of `[]` would stop the event loop
for 0.4 s.
"""

DIGITS_MAX = 300
"""Of one number; more only cost time, which grows with their square."""

TOO_DEEP = "The body is nested too deeply; send a flat JSON object"

_ENTITY_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE | re.DOTALL)


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The body, at most `limit` bytes, within 20 s; PayloadTooLarge before more than the limit is held."""
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


def check_media_type(request: Request, accepted: tuple[str, ...]) -> None:
    """UnsupportedMediaType unless the body says that it is what we read."""
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


def parse_json(body: bytes) -> Any:
    """The JSON value of a body in UTF-8, which is what JSON is sent in (RFC 8259, 8.1). InvalidRequest where it is
    none: duplicate names, NaN and bottomless nesting too.
    """
    if sum(map(body.count, (b"[", b"{", b",", b":"))) > PARTS_MAX:
        raise InvalidRequest("The body holds more values than any request here needs; send fewer")
    try:
        return json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_whole
        )
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


def if_match(request: Request) -> tuple[str, ...] | None:
    """The strong tags of If-Match, or ("*",), or None without the header. Weak tags never match (RFC 9110, 13.1.1)."""
    values = request.headers.getlist("if-match")
    return entity_tags(", ".join(values), "If-Match", weak=False) if values else None


def entity_tags(text: str, header: str, *, weak: bool) -> tuple[str, ...]:
    """The entity tags of a list, `*` as itself; weak ones are dropped, or kept without their W/ where `weak`."""
    if text.strip() == "*":
        return ("*",)
    tags: list[str] = []
    at = 0
    while at < len(text):
        found = _ENTITY_TAG.match(text, at)
        if found is None:
            break
        if weak or not found[1]:
            tags.append(found[2])
        at = found.end()
    if at < len(text) or not text.strip() or text.rstrip().endswith(","):
        raise InvalidRequest(f'{header} must be * or a list of entity tags like "3"; take it from an ETag')
    return tuple(tags)


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, 1 to 255 visible ASCII characters, or None without the header."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise InvalidRequest("Idempotency-Key must be one value of 1 to 255 visible characters, without spaces")
    return values[0]


def fingerprint(request: Request, body: Any) -> str:
    """SHA-256 over what a repeat must repeat: method, path, parsed body and If-Match (SPEC 4)."""
    parts = [request.method, request.scope["path"], body, request.headers.getlist("if-match")]
    try:
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        # As deep as json.loads could just go; json.dumps begins a few frames further down.
        raise InvalidRequest(TOO_DEEP) from None


@dataclass(frozen=True, slots=True)
class Preference:
    """What Prefer asks for (RFC 7240). `wait` in seconds, already cut to what we allow; None: not asked."""

    respond_async: bool = False
    wait: float | None = None

    def patience(self, default: float) -> float:
        """For how many seconds to wait for the end; `default` where nothing else was asked."""
        if self.respond_async:
            return 0.0
        return default if self.wait is None else self.wait

    def applied(self, *, answered_async: bool) -> dict[str, str]:
        """The header Preference-Applied, where a preference was honoured."""
        names = ["respond-async"] if answered_async and self.respond_async else []
        if self.wait is not None and not self.respond_async:
            names.append(f"wait={self.wait:.0f}")
        return {"Preference-Applied": ", ".join(names)} if names else {}


NO_PREFERENCE = Preference()


def prefer(request: Request, wait_max: float) -> Preference:
    """The preferences we know; others are ignored, as RFC 7240 says. A `wait` that is no number is refused."""
    values = request.headers.getlist("prefer")
    if not values:
        return NO_PREFERENCE
    respond_async, wait = False, None
    for part in ",".join(values).split(","):
        name = part.partition(";")[0].partition("=")[0].strip().lower()
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None:
            found = _WAIT.fullmatch(part)
            if found is None:
                raise InvalidRequest("Prefer: wait must be a whole number of seconds, like wait=5")
            wait = min(float(found[1]), wait_max)
    return Preference(respond_async, wait)


async def empty_body(request: Request) -> Any:
    """The body of a route that takes no fields: none at all (None), or an empty JSON object."""
    content = await read_body(request)
    if not content:
        return None
    check_media_type(request, JSON_TYPES)
    body = parse_json(content)
    if body != {}:
        raise InvalidRequest("This route takes no fields; send no body, or {}")
    return body
