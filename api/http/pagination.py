"""The queries of lists: filters, limit and cursor, as Pydantic models that FastAPI reads and documents.

A cursor (api/http/cursors.py) is valid only for the list, the workspace and the filters that it was made for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request

from api.http.cursors import CURSOR_MAX, Place, Seal
from api.http.json_answer import JsonAnswer
from shared.domain import fields
from shared.domain.bodies import Body, absent, names
from shared.domain.body_reading import faults_of
from shared.domain.errors import Faults, InvalidRequest
from shared.domain.fields import Ruled, fault

LIMIT, LIMIT_MAX = 50, 100

BY_TIME_AND_ID: Final = (datetime, str)
BY_NUMBER: Final = (int,)
"""The types of the values in a list's places. A place says where a page begins."""


def _instant(value: str) -> datetime:
    # A plus sign that was not percent-encoded arrives as a blank.
    return fields.instant(f"{value[:-6]}+00:00" if value.endswith(" 00:00") else value)


def _limit(value: str) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= LIMIT_MAX:
        return int(value)
    raise fault("invalid_request", f"must be a whole number from 1 to {LIMIT_MAX}")


Instant = Annotated[datetime, Ruled(_instant, pattern=fields.INSTANT_PATTERN, examples=["2030-04-22T00:00:00Z"])]


class Paging(Body):
    """The query of a list. A list with filters has a subclass; its attributes are the store's names."""

    limit: Annotated[int, Ruled(_limit, "integer", minimum=1, maximum=LIMIT_MAX, default=LIMIT)] = Field(
        default=LIMIT,
        description="How many at most. A page may hold fewer where a filter matches few of very many: hasMore tells.",
    )
    cursor: Annotated[str, Ruled(str, pattern="^[A-Za-z0-9_-]+$", maxLength=CURSOR_MAX)] = Field(
        default=absent, description="nextCursor of the page before, with the same filters."
    )

    def filters(self) -> dict[str, Any]:
        """The filters that were sent."""
        return {name: value for name, value in self if name not in Paging.model_fields and value is not absent}


@dataclass(frozen=True, slots=True)
class Asked:
    """A list request. `filters`: under the store's names. `limit`: 1 to 100. `after`: where the page begins."""

    filters: dict[str, Any]
    limit: int
    after: Place | None
    bound_to: bytes
    seal: Seal

    def answer(
        self, data: Sequence[Mapping[str, Any]], next_place: Place | None, headers: Mapping[str, str] | None = None
    ) -> JsonAnswer:
        """The page as a response: `{data, hasMore, nextCursor}`."""
        cursor = None if next_place is None else self.seal.close(next_place, self.bound_to)
        return JsonAnswer({"data": data, "hasMore": cursor is not None, "nextCursor": cursor}, headers=headers)


def read(query: Paging, request: Request, workspace_id: str, seal: Seal, kinds: Sequence[type]) -> Asked:
    """Check what FastAPI does not: parameters that are there twice, and the cursor. Raises InvalidRequest."""
    faults = Faults()
    repeated(type(query), request, faults)
    faults.raise_if_any()
    filters = {*names(type(query))} - {"limit", "cursor"}
    pairs = request.query_params.multi_items()
    bound_to = to_json([workspace_id, request.scope["path"], sorted(pair for pair in pairs if pair[0] in filters)])
    after = None
    if query.cursor is not absent:
        after = seal.open(query.cursor, bound_to, kinds)
        if after is None:
            message = "cursor is not one of this list with these filters; send nextCursor of the page before, or none"
            faults.add("invalid_request", "cursor", message)
            faults.raise_if_any()
    return Asked(query.filters(), query.limit, after, bound_to, seal)


def refusal(request: Request, errors: Iterable[Any]) -> InvalidRequest:
    """All that is wrong with a query that its model does not take. `errors`: FastAPI's."""
    [query] = request.scope["route"].dependant.query_params
    model: type[Paging] = query.field_info.annotation
    faults = Faults()
    repeated(model, request, faults)
    faults_of(model, ({**each, "loc": each["loc"][1:]} for each in errors), faults)
    return faults.error() or InvalidRequest("The query is not understood")


def repeated(model: type[Body], request: Request, faults: Faults) -> None:
    """Add a fault for each parameter of the model that is there twice. FastAPI takes the last one."""
    pairs = request.query_params.multi_items()
    for name in names(model):
        if sum(pair[0] == name for pair in pairs) > 1:
            faults.add("invalid_request", name, f"{name} is there twice; send it once")
