"""Reads and checks the query of a list: its filters, limit and cursor.

A cursor (api/http/cursors.py) is valid only for the list, the workspace and the filters that it was made for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from api.http.cursors import Place, Seal
from shared.domain import fields, times
from shared.domain.bodies import check_known
from shared.domain.errors import Faults

LIMIT, LIMIT_MAX = 50, 100

BY_TIME_AND_ID: Final = (datetime, str)
BY_NUMBER: Final = (int,)
"""The types of the values in a list's places. A place says where a page begins."""


class Filter(NamedTuple):
    """One filter: its name in the store, and its rule. `parse` returns None for a value that breaks the rule."""

    name: str
    parse: Callable[[str], object | None]
    rule: str


def one_of(name: str, values: Iterable[str]) -> Filter:
    """A filter with a fixed set of values."""
    known = {str(value): str(value) for value in values}
    return Filter(name, known.get, f"must be one of {', '.join(known)}")


def identifier(name: str) -> Filter:
    """A filter by an id. An unknown id, or another workspace's, matches nothing."""
    return Filter(name, lambda text: text if 0 < len(text) <= 255 else None, "must have 1 to 255 characters")


def instant(name: str) -> Filter:
    """A filter by a UTC time. A plus sign that was not percent-encoded arrives as a blank, and is read as a plus."""

    def parse(text: str) -> datetime | None:
        return times.parse_instant(f"{text[:-6]}+00:00" if text.endswith(" 00:00") else text)

    return Filter(name, parse, f"must be {times.INSTANT_RULE}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A list request. `filters`: under the store's names. `limit`: 1 to 100. `after`: where the page begins."""

    filters: dict[str, Any]
    limit: int
    after: Place | None
    bound_to: bytes
    seal: Seal

    def page(self, data: Sequence[Mapping[str, Any]], next_place: Place | None) -> dict[str, Any]:
        """The body of the answer: `{data, hasMore, nextCursor}`."""
        cursor = None if next_place is None else self.seal.close(next_place, self.bound_to)
        return {"data": data, "hasMore": cursor is not None, "nextCursor": cursor}


def read(
    request: Request, filters: Mapping[str, Filter], workspace_id: str, seal: Seal, kinds: Sequence[type]
) -> Asked:
    """Read and check the query string. Raises InvalidRequest that names every parameter at fault: unknown, repeated or
    malformed ones, and a cursor that was made for another workspace, path or set of filters.
    """
    faults = Faults()
    known = (*filters, "limit", "cursor")
    pairs = request.query_params.multi_items()
    given = dict(pairs)
    check_known(given, known, faults)
    for name in known:
        if sum(pair[0] == name for pair in pairs) > 1:
            faults.add("invalid_request", name, f"{name} is there twice; send it once")
    values: dict[str, Any] = {}
    for name, rule in filters.items():
        if name not in given:
            continue
        values[rule.name] = rule.parse(given[name]) if fields.is_clean(given[name]) else None
        if values[rule.name] is None:
            faults.add("invalid_request", name, f"{name} {rule.rule}")
    limit = _limit(given.get("limit"), faults)
    faults.raise_if_any()
    bound_to = to_json([workspace_id, request.scope["path"], sorted(pair for pair in pairs if pair[0] in filters)])
    after = None
    if "cursor" in given:
        after = seal.open(given["cursor"], bound_to, kinds)
        if after is None:
            message = "cursor is not one of this list with these filters; send nextCursor of the page before, or none"
            faults.add("invalid_request", "cursor", message)
            faults.raise_if_any()
    return Asked(values, limit, after, bound_to, seal)


def answer(body: Mapping[str, Any]) -> Response:
    """A page as a response."""
    return Response(to_json(body), media_type="application/json")


def _limit(text: str | None, faults: Faults) -> int:
    if text is None:
        return LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    faults.add("invalid_request", "limit", f"limit must be a whole number from 1 to {LIMIT_MAX}")
    return LIMIT
