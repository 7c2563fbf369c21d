"""What reads the head of a request costs linear work, whatever stands there."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError

from api import posts
from api.http import cursors, headers, pagination, reading
from api.http.cursors import Seal
from api.ops import access
from shared.domain import edit_histories, errors, guessing
from shared.settings import Settings
from shared.store import keys as keys_store
from shared.telemetry import scrubbing
from tests.linear.cost import WITHIN, affordable
from tests.linear.hostile import HEAD, WORST, asked, of

LIST: Any = next(route for route in posts.router.routes if getattr(route, "name", "") == "list_posts")


def listed(query: str) -> object:
    """What FastAPI and we do with the query of a list."""
    request = asked(query)
    reading.check_number_of_parameters(request)
    request.scope["route"] = LIST
    values, errors = request_params_to_args(LIST.dependant.query_params, request.query_params)
    if errors:
        return pagination.refusal(request, RequestValidationError(errors).errors())
    return pagination.read(values["query"], request, "ws", SEAL, pagination.BY_NUMBER)


SEAL = Seal(bytes(32))
NO_BRACKETS = [text for text in WORST if "[" not in text]
MANY = [f"{name:x}" for name in range(HEAD // 6)]
HEADS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "If-Match": (lambda text: headers.preconditions(asked(if_match=text)), WORST),
    "If-Match, many": (
        lambda text: headers.preconditions(asked(if_match=text.split("|"))),
        ['"a"|' * 12_000, "W/|" * 12_000],
    ),
    "If-None-Match": (lambda text: headers.preconditions(asked(if_none_match=text)), WORST),
    "Idempotency-Key": (lambda text: headers.idempotency_key(asked(idempotency_key=text)), WORST),
    "Prefer": (lambda text: headers.prefer(asked(prefer=text), 30), WORST),
    "Prefer, many": (
        lambda text: headers.prefer(asked(prefer=text.split("|")), 30),
        ["wait|" * 12_000, "a=1;|" * 12_000],
    ),
    "Content-Type": (lambda text: reading.check_media_type(asked(content_type=text), reading.JSON_TYPES), WORST),
    "Accept": (
        lambda text: headers.likes_better([text], "text/csv", "application/json"),
        [*WORST, of("a;q=1,"), of("a;" + "q=1;" * 99), "a;q=" + of("1")],
    ),
    "Authorization": (lambda text: keys_store.hash_of(text.encode("utf-8", "replace").decode()), WORST),
    "Authorization of /ops": (
        lambda text: guessing.basic(f"Basic {text}"),
        [*WORST, of("YTo6"), of("A", tail="=")],
    ),
    "Origin": (lambda text: access.from_here(asked(origin=f"http://a{text}", host=text)), NO_BRACKETS),
    "a token of /ops": (lambda text: access.token_holds(Settings(), "/ops", text), WORST),
    "a query": (
        listed,
        [*WORST, of("a=1&"), "&".join(f"{name}=1" for name in MANY), of("status=posted&"), of("limit=1&")],
    ),
    "a cursor": (lambda text: SEAL.open(text[: cursors.CURSOR_MAX], b"", pagination.BY_NUMBER), WORST),
    "a cursor that is long": (lambda text: listed(f"cursor={text}"), [of("A"), of("-_"), of("A", tail="=")]),
    "an id, quoted": (errors.printable, WORST),
    "a log's value": (scrubbing.clean, WORST),
    "a log's text, scrubbed": (scrubbing.scrubbed, WORST),
    "a URL on a page of /ops": (edit_histories.without_secrets, WORST),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_reads_a_head_takes_linear_time(name: str) -> None:
    call, worst = HEADS[name]
    for text in worst:
        assert affordable(lambda t=text: call(t), WITHIN), (text[:40], text[-4:])  # type: ignore[misc]
