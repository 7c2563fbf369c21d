"""Guessing at /ops over HTTP, with and without a proxy between."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import text

from shared.domain.guessing import FREE
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories, guesses
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running

USER, PASSWORD = "ops", "correct horse ü"
RIGHT = httpx.BasicAuth(USER.encode(), PASSWORD.encode())
WRONG = httpx.BasicAuth(USER, "wrong")
WARNED = "ops_password_wrong"


def _stack(postgres: PostgreSQL, valkey: Valkey, number: int, trusted: str) -> Iterator[Running]:
    name = f"api_ops_access_{number}"
    url = postgres.create_database(name, template=TEMPLATE)
    environment = {"REDRAFT_OPS_PASSWORD": PASSWORD, "REDRAFT_TRUSTED_PROXIES": trusted, "REDRAFT_LOG_FORMAT": "json"}
    with running(url, empty_database(valkey), **environment) as stack:
        yield stack
    postgres.drop_database(name)


@pytest.fixture
def own_api(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """An API that trusts no proxy, and has seen no guess yet."""
    yield from _stack(postgres, valkey, 1, "")


@pytest.fixture
def behind(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """One whose proxy is on loopback."""
    yield from _stack(postgres, valkey, 2, "127.0.0.1")


def ask(stack: Running, auth: httpx.BasicAuth | None, *, cookie: str = "", forwarded: str = "") -> httpx.Response:
    assert stack.api is not None
    headers = {"Cookie": cookie} if cookie else {}
    headers |= {"X-Forwarded-For": forwarded} if forwarded else {}
    with httpx.Client(base_url=stack.api.url, auth=auth, headers=headers, **LOOPBACK, timeout=20) as http:
        return http.get("/ops/style.css")


def timed(stack: Running, auth: httpx.BasicAuth, **more: str) -> tuple[int, float]:
    began = time.monotonic()
    return ask(stack, auth, **more).status_code, time.monotonic() - began


@contextmanager
def waiting(stack: Running, **more: str) -> Iterator[Future[httpx.Response]]:
    """A guess that has to wait for seconds, under way."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(ask, stack, WRONG, **more)


def test_the_right_password_is_let_in_beside_a_flood_of_wrong_ones_from_its_own_address(own_api: Running) -> None:
    assert own_api.api is not None
    url = f"{own_api.api.url}/ops/style.css"
    heard = guesses.answers(url, guesses.basic(USER, "wrong"), guesses.basic(USER, PASSWORD))
    assert {status for right, status in heard if not right} == {401}
    assert [status for right, status in heard if right] == [200]
    assert heard.index((True, 200)) > 100, "the guesses before it were answered first: its speed tells nothing"


def test_guesses_one_after_the_other_are_slow_and_what_the_client_says_of_itself_changes_nothing(
    own_api: Running,
) -> None:
    """On loopback everybody could lift the limit by another X-Forwarded-For each time."""
    for number in range(FREE + 3):
        ask(own_api, WRONG, forwarded=f"203.0.113.{number}")
    status, seconds = timed(own_api, WRONG, forwarded="203.0.113.99")
    assert status == 401
    assert seconds > 0.9
    status, seconds = timed(own_api, RIGHT)
    assert status == 200
    assert seconds > 0.9, "the right one waits as long as a wrong one would"
    said = own_api.api.output() if own_api.api else ""
    assert said.count(WARNED) == 1, "one line tells of many"
    assert '"client":"127.0.0.1"' in said


def test_who_has_been_right_has_a_pass_and_does_not_wait_for_what_others_guess(own_api: Running) -> None:
    first = ask(own_api, RIGHT)
    assert first.status_code == 200
    given = first.headers["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=strict" in given
    assert "Path=/ops" in given
    cookie = given.partition(";")[0]
    assert "set-cookie" not in ask(own_api, RIGHT, cookie=cookie).headers, "one is enough"
    for _ in range(FREE + 3):
        ask(own_api, WRONG)
    with waiting(own_api) as guess:
        assert ask(own_api, RIGHT, cookie=cookie).status_code == 200
        assert not guess.done()
    assert ask(own_api, None, cookie=cookie).status_code == 401, "a pass opens nothing"
    assert "set-cookie" not in ask(own_api, WRONG).headers


def test_a_form_survives_the_wait(own_api: Running) -> None:
    assert own_api.api is not None
    with own_api.engine.begin() as tx:
        edit_id = factories.edit(tx, factories.post(tx), {"caption": "x"})
        tx.execute(
            text(
                """UPDATE edits SET status = 'failed', attempts = 5, finalized_at = clock_timestamp(),
                   error_code = 'internal', error_message = 'x' WHERE id = :id"""
            ),
            {"id": edit_id},
        )
    headers = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=own_api.api.url, auth=RIGHT, headers=headers, **LOOPBACK, timeout=20) as http:
        page = http.get(f"/ops/edits/{edit_id}").text
        token = page.partition(f"/ops/edits/{edit_id}/discard")[2].partition('name="token" value="')[2].split('"')[0]
        for _ in range(FREE + 1):
            ask(own_api, WRONG)
        http.cookies.clear()
        answer = http.post(f"/ops/edits/{edit_id}/discard", data={"token": token})
    assert answer.status_code == 303
    assert own_api.row("edits", edit_id).status == "rejected"


def test_behind_a_trusted_proxy_each_client_is_counted_by_its_own_address(behind: Running) -> None:
    for _ in range(FREE + 3):
        ask(behind, WRONG, forwarded="203.0.113.1")
    with waiting(behind, forwarded="203.0.113.1") as guess:
        assert ask(behind, WRONG, forwarded="198.51.100.7").status_code == 401
        assert not guess.done()
    # What a client writes itself stands left of what the proxy adds.
    assert timed(behind, WRONG, forwarded="192.0.2.55, 203.0.113.1")[1] > 0.9
    said = behind.api.output() if behind.api else ""
    assert '"client":"203.0.113.1"' in said
    assert '"client":"127.0.0.1"' not in said
