"""Each key's own limit, counted in Redis by all processes together, and by this one alone while Redis is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text

from api.http import limits
from api.http.limits import RateLimits, Usage
from shared.store.keys import Key
from tests import factories
from tests.api.answers import client, error
from tests.loopback import LOOPBACK
from tests.processes import Server
from tests.stack import Running
from tests.waiting import eventually

MINUTE = 1_800_000_000 // 60 * 60
KEY = Key("key_a", "ws", "a", frozenset(), 3)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count: a busy machine must not be taken for a Redis that is away."""
    monkeypatch.setattr(limits, "PATIENCE", 5.0)


class Wall:
    """A clock that stands where a test puts it."""

    def __init__(self, now: float = MINUTE + 10.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def run(url: str, scenario: Callable[[RateLimits, Wall], Awaitable[Any]]) -> Any:
    async def within_a_loop() -> Any:
        wall = Wall()
        limiter = RateLimits(url, wall)
        try:
            return await scenario(limiter, wall)
        finally:
            await limiter.close()

    return asyncio.run(within_a_loop())


@pytest.mark.usefixtures("patient")
def test_a_key_may_make_its_number_of_requests_a_minute_and_no_more_until_the_next(redis_url: str) -> None:
    async def scenario(limiter: RateLimits, wall: Wall) -> None:
        found = [await limiter.hit(KEY, 3) for _ in range(5)]
        assert [(one.allowed, one.remaining, one.reset) for one in found] == [
            (True, 2, 50), (True, 1, 50), (True, 0, 50), (False, 0, 50), (False, 0, 50),
        ]  # fmt: skip
        wall.now += 49.5
        assert await limiter.hit(KEY, 3) == Usage(allowed=False, limit=3, remaining=0, reset=1)
        wall.now += 0.5
        assert await limiter.hit(KEY, 3) == Usage(allowed=True, limit=3, remaining=2, reset=60)

    run(redis_url, scenario)


@pytest.mark.usefixtures("patient")
def test_two_processes_count_together_and_two_keys_apart(redis_url: str) -> None:
    async def scenario(limiter: RateLimits, wall: Wall) -> None:
        other = RateLimits(redis_url, wall)
        try:
            found = [await one.hit(KEY, 3) for one in (limiter, other, limiter, other)]
            assert [one.allowed for one in found] == [True, True, True, False]
            assert (await other.hit(Key("key_b", "ws", "b", frozenset(), 3), 3)).remaining == 2
        finally:
            await other.close()

    run(redis_url, scenario)


@pytest.mark.usefixtures("patient")
def test_requests_that_come_together_are_counted_in_one_round_trip_each_in_its_own_place(redis_url: str) -> None:
    async def scenario(limiter: RateLimits, _: Wall) -> None:
        asked: list[int] = []
        add = limiter._add

        async def counted(name: str, amount: int) -> int:
            asked.append(amount)
            return await add(name, amount)

        limiter._add = counted  # type: ignore[method-assign]
        found = await asyncio.gather(*(limiter.hit(KEY, 40) for _ in range(50)))
        assert sorted(one.remaining for one in found if one.allowed) == list(range(40))
        assert sum(one.allowed for one in found) == 40
        assert (sum(asked), len(asked) <= 2) == (50, True), "fifty requests, one round trip or two"
        asked.clear()
        assert not (await limiter.hit(KEY, 40)).allowed
        assert asked == [], "what is spent is refused without asking"

    run(redis_url, scenario)


def test_a_frozen_redis_costs_fifty_milliseconds_once_in_five_seconds_and_counting_goes_on(
    own_valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = limits.PATIENCE

    async def scenario(limiter: RateLimits, _: Wall) -> None:
        # A busy machine must not be taken for a Redis that is away.
        monkeypatch.setattr(limits, "PATIENCE", 5.0)
        await limiter.hit(KEY, 1000)
        monkeypatch.setattr(limits, "PATIENCE", patience)
        own_valkey.process.freeze()
        try:
            began = time.monotonic()
            first = await limiter.hit(KEY, 1000)
            waited = time.monotonic() - began
            rest = [await limiter.hit(KEY, 1000) for _ in range(200)]
            assert time.monotonic() - began < limits.WITHOUT_REDIS_FOR, "no second wait"
        finally:
            own_valkey.process.thaw()
        assert patience <= waited < 1
        assert (first.remaining, rest[-1].remaining) == (998, 798)
        monkeypatch.setattr(limits, "PATIENCE", 5.0)
        limiter._without_redis_until = 0.0
        for _again in range(100):
            after = await limiter.hit(KEY, 1000)
            if limiter._without_redis_until == 0.0:
                break
            limiter._without_redis_until = 0.0
            await asyncio.sleep(0.05)
        # What was counted alone has been told; what timed out may have been counted twice, never thrice.
        assert 790 <= after.remaining <= 797

    run(own_valkey.url, scenario)


def test_without_redis_a_process_counts_by_itself_from_where_it_was(own_valkey: Server) -> None:
    async def scenario(limiter: RateLimits, _: Wall) -> None:
        assert (await limiter.hit(KEY, 3)).remaining == 2
        own_valkey.process.kill()
        found = [await limiter.hit(KEY, 3) for _ in range(3)]
        assert [one.allowed for one in found] == [True, True, False]

    run(own_valkey.url, scenario)


@pytest.fixture(scope="module")
def limited(stack: Running) -> str:
    secret = "sk_limited_0123456789"
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_limited", "_limited", secret)
        tx.execute(text("UPDATE api_keys SET rate_limit = 8 WHERE id = 'key_test_limited'"))
    return secret


def test_every_answer_to_a_limited_key_tells_its_standing_and_the_last_straw_is_a_429(
    stack: Running, limited: str
) -> None:
    # Not at the end of a minute, or the window would begin anew in the middle of the story.
    eventually(lambda: time.time() % 60 < 50, within=30)
    post = stack.post(workspace_id="ws_limited")
    with client(stack, limited) as http:
        answers = [
            http.get(f"/v1/posts/{post}"),
            http.patch(f"/v1/posts/{post}", json={"caption": "x"}),
            http.patch(f"/v1/posts/{post}", json={"nonsense": 1}),
            http.get("/v1/posts/post_nowhere"),
            http.get("/v1/posts?limit=0"),
            http.head(f"/v1/posts/{post}"),
            http.get("/v1/accounts"),
            http.get("/v1/edits"),
        ]
        refused = http.patch(f"/v1/posts/{post}", json={"caption": "too many"})
    assert [answer.status_code for answer in answers] == [200, 200, 400, 404, 400, 200, 200, 200]
    for place, answer in enumerate(answers, 1):
        assert answer.headers["ratelimit-policy"] == '"default";q=8;w=60'
        assert answer.headers["ratelimit"].startswith(f'"default";r={8 - place};t=')
    said = error(refused, 429)
    assert said["code"] == "rate_limited"
    seconds = int(refused.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert refused.headers["ratelimit"] == f'"default";r=0;t={seconds}'
    assert str(seconds) in said["message"]
    assert stack.row("posts", post).caption == "x"
    assert len(stack.edits_of(post)) == 1


def test_keys_without_a_limit_and_strangers_are_told_of_none_and_never_reach_redis(stack: Running) -> None:
    with redis.Redis.from_url(stack.environment["REDRAFT_REDIS_URL"]) as broker:
        before = set(broker.keys("redraft:limit:*"))
        stack.http.get("/v1/accounts")
        assert set(broker.keys("redraft:limit:*")) == before
    stranger = httpx.get(f"{stack.http.base_url}/v1/accounts", **LOOPBACK)
    for answer in (stack.http.get("/v1/accounts"), stranger, stack.http.get("/nowhere"), stack.http.get("/healthz")):
        assert not {"ratelimit", "ratelimit-policy"} & set(answer.headers)


def test_a_flood_over_the_limit_is_cut_at_the_limit(stack: Running) -> None:
    secret = "sk_flood_0123456789"
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_flood", "_flood", secret)
        tx.execute(text("UPDATE api_keys SET rate_limit = 50 WHERE id = 'key_test_flood'"))
    eventually(lambda: time.time() % 60 < 40, within=25)
    with client(stack, secret) as http, ThreadPoolExecutor(20) as clients:
        found = list(clients.map(lambda _: http.get("/v1/accounts").status_code, range(120)))
    assert (found.count(200), found.count(429)) == (50, 70)
