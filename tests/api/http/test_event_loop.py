"""Requests that are hard work: none holds the event loop for long, none keeps a probe waiting, and a hold is seen.

That none does is asserted below each test of a stack (tests/api/conftest.py).
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api import context as contexts
from api.context import Context
from api.http import lag
from api.http.reading import BODY_LIMIT, BULK_BODY_LIMIT
from shared.broker import redis_connection
from shared.domain.errors import Unavailable
from shared.settings import settings
from tests.api.answers import error
from tests.api.http.test_hostile_requests import HEAD, send
from tests.api.test_metrics import scrape, total
from tests.linear.hostile import JOBS, UNITS, hostile, of
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.watchdog import HELD, SAID, held_up

CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
PATHS = ["a-", "a.", "a", "%20", "%1b", "%e2%80%ae", "://", "https://a%40", "sk_", "Bearer%20", "a/", "/"]


@pytest.mark.parametrize("unit", PATHS)
@pytest.mark.parametrize("key", [b"Host: x\r\n", HEAD], ids=["nobody", "somebody"])
def test_a_path_of_any_kind_holds_nobody_up(stack: Running, unit: str, key: bytes) -> None:
    for path in ("/v1/posts/", "/v1/edits/", "/v1/reschedules/", "/ops/posts/", "/"):
        found = send(stack, f"GET {path}{of(unit, 60_000)} HTTP/1.1\r\n".encode() + key + b"\r\n")
        assert found[0] in (401, 404), found


@pytest.mark.parametrize(
    "header", ["If-None-Match", "Accept", "Prefer", "Authorization", "Cookie", "X-Request-Id", "Traceparent", "Origin"]
)
def test_a_header_of_any_kind_holds_nobody_up(stack: Running, header: str) -> None:
    for unit in UNITS:
        text = of(unit, 60_000).strip().encode("utf-8", "replace")
        if CONTROL.search(text):
            continue
        found = send(
            stack, b"GET /v1/posts/post_none HTTP/1.1\r\n" + HEAD + header.encode() + b": " + text + b"\r\n\r\n"
        )
        assert found[0] in (400, 401, 404), (unit, found)


def test_a_query_of_any_kind_holds_nobody_up(stack: Running) -> None:
    for query in (of("a=1&"), of("limit=1&"), of("%00"), of("cursor=A"), of("&"), of("="), of("%ff=1&")):
        found = send(stack, f"GET /v1/posts?{query[:60_000]} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
        assert found[0] in (200, 400), found


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in hostile(BODY_LIMIT).items()])
def test_a_body_of_any_kind_holds_nobody_up(stack: Running, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "hard"}
    for method, path in (("PATCH", "/v1/posts/post_none"), ("POST", "/v1/posts/video"), ("DELETE", "/v1/posts")):
        assert error(stack.http.request(method, path, content=body, headers=headers), 400)


@pytest.mark.parametrize("name", hostile(12))
def test_a_body_of_two_megabytes_holds_nobody_up(stack: Running, name: str) -> None:
    body = hostile(BULK_BODY_LIMIT)[name]
    headers = {"Content-Type": "application/json", "Idempotency-Key": "hard"}
    assert error(stack.http.post("/v1/reschedules", content=body, headers=headers), 400)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_any_kind_holds_nobody_up(stack: Running, name: str) -> None:
    body = json.dumps(JOBS[name] | {"dryRun": True}, separators=(",", ":")).encode()
    answer = stack.http.post("/v1/reschedules", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (202, 400, 413), answer.text


def test_probes_are_answered_beside_many_heavy_bodies(stack: Running) -> None:
    """Six of these once filled all threads that a probe could have, for a minute."""
    assert stack.api is not None
    url = f"{stack.api.url}/v1/reschedules"
    body = hostile(BULK_BODY_LIMIT)["names, one twice"]
    headers = {"Authorization": stack.http.headers["authorization"], "Content-Type": "application/json"}
    with ThreadPoolExecutor(12) as clients:
        sent = [
            clients.submit(httpx.post, url, content=body, headers=headers, timeout=60, **LOOPBACK) for _ in range(48)
        ]
        probes = 0
        while not all(one.done() for one in sent):
            answer = stack.http.get("/readyz", timeout=10)
            assert (answer.status_code, answer.json()) == (200, {"database": "up", "redis": "up"})
            probes += 1
    assert {one.result().status_code for one in sent} <= {400, 503}
    assert probes > 0


def in_a_context(scenario: Callable[[Context], Awaitable[None]]) -> None:
    """Run a coroutine function with a context that needs no servers."""

    async def within_a_loop() -> None:
        context = Context(settings())
        try:
            await scenario(context)
        finally:
            await context.close()

    asyncio.run(within_a_loop())


def test_more_heavy_bodies_than_can_be_held_are_told_so_and_places_come_back(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", redis_url)
    settings.cache_clear()
    redis_connection.client.cache_clear()
    go_on = threading.Event()

    async def scenario(context: Context) -> None:
        # A quarter of the places is kept for other workspaces.
        most = contexts.PARSED_AT_MOST * 3 // 4
        waiting = [asyncio.ensure_future(context.parse(go_on.wait, 10)) for _ in range(most)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await context.parse(len, b"")
        # A client that goes away gives no place back: its body is in the thread's hands still.
        waiting.pop().cancel()
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await context.parse(len, b"")
        go_on.set()
        await asyncio.gather(*waiting)
        while context._parsing:  # noqa: ASYNC110  -- the thread that was left alone says when it is done
            await asyncio.sleep(0.01)
        assert await context.parse(len, b"12") == 2

    in_a_context(scenario)


# -- The figure and the watchdog


def test_the_longest_hold_is_shown_for_half_a_minute_to_a_minute() -> None:
    longest = lag.Longest(60.0)
    assert longest.at(1000.0) == 0.0
    longest.note(0.5, 1001.0)
    longest.note(0.2, 1002.0)
    assert longest.at(1019.0) == 0.5
    assert longest.at(1031.0) == 0.5, "in the next half it is still known"
    longest.note(0.1, 1032.0)
    assert longest.at(1032.0) == 0.5
    assert longest.at(1050.0) == 0.1, "and in the one after it no more"
    assert longest.at(2000.0) == 0.0


def test_a_hold_is_measured_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[float] = []
    monkeypatch.setattr(lag, "PERIOD", 0.01)
    monkeypatch.setattr(lag.log, "warning", lambda _, seconds: logged.append(seconds))

    async def scenario() -> float:
        watch = lag.Lag()
        watch.start()
        await asyncio.sleep(0.02)
        time.sleep(0.4)  # noqa: ASYNC251  -- what no code may do
        await asyncio.sleep(0.02)
        watch.stop()
        return watch.seconds()

    assert 0.3 < asyncio.run(scenario()) < 5
    assert logged
    assert logged[0] > lag.WORTH_LOGGING


def test_the_watchdog_barks_and_the_figure_shows_it(database_url: str, redis_url: str) -> None:
    """A process that is stopped holds its loop, as far as the loop can see."""
    with running(database_url, redis_url) as stack:
        assert stack.api is not None
        assert total(scrape(stack), "redraft_event_loop_lag_seconds") < 5
        assert held_up(stack.api) == []
        stack.api.freeze()
        time.sleep(HELD * 4)
        stack.api.thaw()
        stack.api.says(SAID, within=30)
        assert total(scrape(stack), "redraft_event_loop_lag_seconds") > HELD
        assert "event_loop_held" in stack.api.output()
