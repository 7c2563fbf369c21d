"""Keys: what each scope opens, on every operation of the contract, and how soon a revoked one is shut out."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations

import httpx
import pytest

from api.http.authentication import FRESH, no_key_in
from shared.domain.times import format_instant
from shared.store import keys as keys_store
from shared.store.posts import clock
from tests import factories
from tests.api.answers import client, error
from tests.api.operations import OPERATIONS, Operation
from tests.stack import Running
from tests.waiting import eventually

LOCKED = [operation for operation in OPERATIONS if operation.scope]
IDS = {"{postId}": "post_abc123", "{editId}": "edit_abc123", "{id}": "rsch_abc123"}


def ask(http: httpx.Client, operation: Operation) -> httpx.Response:
    """The operation with ids that nothing has and a body that changes nothing."""
    path = operation.path
    for name, value in IDS.items():
        path = path.replace(name, value)
    return http.request(operation.method.upper(), path, json={"nonsense": True} if operation.body else None)


@pytest.fixture(scope="module")
def secrets(stack: Running) -> dict[frozenset[str], str]:
    """A key for every set of scopes."""
    made = {}
    with stack.engine.begin() as tx:
        for count in range(len(keys_store.SCOPES) + 1):
            for scopes in combinations(keys_store.SCOPES, count):
                made[frozenset(scopes)] = keys_store.create_key(tx, factories.WORKSPACE, f"of {scopes}", scopes, None)
    return made


@pytest.fixture
def stranger(stack: Running) -> Iterator[httpx.Client]:
    with client(stack, "sk_nobody_0123456789") as http:
        yield http


@pytest.mark.parametrize("operation", LOCKED, ids=lambda operation: operation.name)
def test_every_operation_opens_to_its_own_scope_and_to_no_other(
    stack: Running, secrets: dict[frozenset[str], str], operation: Operation
) -> None:
    for scopes, secret in secrets.items():
        with client(stack, secret) as http:
            answer = ask(http, operation)
        assert (answer.status_code == 403) == (operation.scope not in scopes), (scopes, answer.text)
        if answer.status_code == 403:
            said = error(answer)
            assert (said["code"], operation.scope in said["message"]) == ("forbidden", True)
        else:
            assert answer.status_code in {200, 400, 404}, answer.text


@pytest.mark.parametrize("operation", LOCKED, ids=lambda operation: operation.name)
def test_every_operation_is_closed_without_a_key_before_it_looks_at_anything_else(
    stranger: httpx.Client, operation: Operation
) -> None:
    said = []
    for headers in ({"Authorization": "Bearer sk_wrong"}, {"Authorization": ""}, {"Authorization": "Basic YTpi"}):
        stranger.headers.update(headers)
        answer = ask(stranger, operation)
        found = error(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        said.append((found["code"], found["message"]))
    assert set(said) == {("unauthenticated", "Invalid or missing API key")}


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if not one.scope], ids=lambda one: one.name)
def test_health_needs_no_key(stranger: httpx.Client, operation: Operation) -> None:
    assert ask(stranger, operation).status_code == 200


def test_a_revoked_key_is_shut_out_within_a_second_and_a_new_one_let_in_at_once(stack: Running) -> None:
    with stack.engine.begin() as tx:
        secret = keys_store.create_key(tx, factories.WORKSPACE, "short-lived", ["posts:read"], None)
        (made,) = [one for one in keys_store.keys_of(tx, factories.WORKSPACE) if one.key.name == "short-lived"]
    with client(stack, secret) as http:
        assert http.get("/v1/accounts").status_code == 200
        with stack.engine.begin() as tx:
            keys_store.revoke_key(tx, made.key.id)
        began = time.monotonic()
        eventually(lambda: http.get("/v1/accounts").status_code == 401, within=30)
        # The rule's second, and what this machine took to ask.
        assert time.monotonic() - began < FRESH + 1
        assert error(http.get("/v1/accounts"), 401)["message"] == "Invalid or missing API key"


def test_a_key_is_let_in_until_the_database_says_that_it_ends_and_then_refused_at_once(stack: Running) -> None:
    with stack.engine.begin() as tx:
        ends = clock(tx) + timedelta(seconds=1)
        secret = keys_store.create_key(tx, factories.WORKSPACE, "ends", ["posts:read"], None, expires_at=ends)
    seen = set()
    with client(stack, secret) as http, stack.engine.connect() as tx:
        while (before := clock(tx)) < ends + timedelta(seconds=1):
            answer = http.get("/v1/accounts")
            after = clock(tx)
            if after < ends or before >= ends:
                assert answer.status_code == (200 if after < ends else 401), (before, after, ends)
                seen.add(answer.status_code)
        assert seen == {200, 401}
        said = error(http.get("/v1/accounts"), 401)
    assert (said["code"], answer.headers["www-authenticate"]) == ("unauthenticated", "Bearer")
    assert said["message"] == f"This API key expired at {format_instant(ends)}; send a new one"


def test_a_key_in_use_has_its_last_use_written_and_a_refused_one_has_not(stack: Running) -> None:
    with stack.engine.begin() as tx:
        ends = clock(tx) - timedelta(seconds=1)
        used, over = (
            keys_store.create_key(tx, factories.WORKSPACE, name, ["posts:read"], None, expires_at=expires)
            for name, expires in (("used", None), ("over", ends))
        )

    def last_uses() -> dict[str, datetime | None]:
        with stack.engine.connect() as tx:
            found = keys_store.keys_of(tx, factories.WORKSPACE)
        return {one.key.name: one.last_used_at for one in found if one.key.name in {"used", "over"}}

    assert last_uses() == {"used": None, "over": None}
    with client(stack, over) as http:
        assert http.get("/v1/accounts").status_code == 401
    with client(stack, used) as http:
        assert http.get("/v1/accounts").status_code == 200
        first = eventually(lambda: last_uses()["used"], within=30, because="the use is written")
        with stack.engine.connect() as tx:
            assert abs(clock(tx) - first) < timedelta(seconds=30)
    assert last_uses()["over"] is None


def test_a_key_that_was_unknown_is_let_in_soon_after_it_is_made(stack: Running) -> None:
    secret = "sk_made_after_it_was_tried"
    with client(stack, secret) as http:
        assert http.get("/v1/accounts").status_code == 401
        with stack.engine.begin() as tx:
            keys_store.create_key(tx, factories.WORKSPACE, "made late", ["posts:read"], None, secret=secret)
        eventually(lambda: http.get("/v1/accounts").status_code == 200, within=30)


@pytest.mark.parametrize(
    ("header", "elsewhere", "words"),
    [
        (None, False, "the header is missing"),
        ("  ", False, "the header is missing"),
        (None, True, "X-API-Key is not read"),
        ("Basic c2VjcmV0", False, "the scheme is Basic"),
        ("sk_secret", False, "the word Bearer is missing"),
        ("Bearer", False, "no key stands after Bearer"),
        ("bearer   ", False, "no key stands after Bearer"),
        ("Token sk_secret", False, "the scheme is not Bearer"),
    ],
)
def test_which_mistake_a_request_without_a_bearer_token_made(header: str | None, elsewhere: bool, words: str) -> None:
    said = no_key_in(header, elsewhere=elsewhere)
    assert said.startswith(words)
    assert said.endswith("send Authorization: Bearer, and the key after it")
    assert "secret" not in said


def test_a_refusal_for_want_of_a_key_says_why_and_one_of_a_wrong_key_does_not(stack: Running) -> None:
    assert stack.api is not None
    with httpx.Client(base_url=stack.api.url, trust_env=False) as http:
        found = error(http.get("/v1/accounts", headers={"X-API-Key": "sk_secret"}), 401)
        assert [detail["field"] for detail in found["details"]] == ["Authorization"]
        assert "X-API-Key is not read" in found["details"][0]["message"]
        wrong = error(http.get("/v1/accounts", headers={"Authorization": "Bearer sk_wrong"}), 401)
        assert "details" not in wrong
