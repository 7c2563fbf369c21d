"""What a request that waits is answered does not hang on look-ups; what nobody waits for gathers behind one bell."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from api import app
from api.submission import doorbell, submission, waiting
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from tests import factories
from tests.api.answers import messages_at
from tests.waiting import until
from worker.apply import apply_edits

AT_ONCE = {"Prefer": "respond-async"}


@pytest.fixture
def post(engine: Engine) -> str:
    with engine.begin() as tx:
        return factories.post(tx)


@pytest.fixture
def _slow_look_ups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No look-up for those who wait returns before the test is over."""
    over = threading.Event()
    look_up = waiting._read_ends

    def slow(edit_ids: list[str], bodies: list[str]) -> dict[str, EditResult]:
        over.wait(30)
        return look_up(edit_ids, bodies)

    async def close(self: waiting.Waiting) -> None:
        over.set()
        await really_close(self)

    really_close = waiting.Waiting.close
    monkeypatch.setattr(waiting, "_read_ends", slow)
    monkeypatch.setattr(waiting.Waiting, "close", close)
    yield
    over.set()


@asynccontextmanager
async def served() -> AsyncIterator[httpx.AsyncClient]:
    """The API in this process, on the test's own database."""
    transport = httpx.ASGITransport(app.app)
    headers = {"Authorization": f"Bearer {factories.SECRET}"}
    async with (
        app._built.router.lifespan_context(app._built),
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http,
    ):
        yield http


def run_scenario(scenario: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with served() as http:
            return await scenario(http)

    return asyncio.run(run())


@pytest.mark.usefixtures("_slow_look_ups")
@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "wait=1"])
def test_a_repeat_of_an_edit_that_has_ended_gets_its_result_however_slow_look_ups_are(post: str, prefer: str) -> None:
    path, body, key = f"/v1/posts/{post}", {"caption": "once"}, {"Idempotency-Key": "k"}

    async def scenario(http: httpx.AsyncClient) -> None:
        first = await http.patch(path, json=body, headers=key | AT_ONCE)
        assert first.status_code == 202
        queued = await http.patch(path, json=body, headers=key | AT_ONCE)
        assert (queued.status_code, queued.json(), queued.headers["idempotent-replayed"]) == (202, first.json(), "true")
        await asyncio.to_thread(apply_edits, [post])
        repeated = await http.patch(path, json=body, headers=key | {"Prefer": prefer})
        assert (repeated.status_code, repeated.json()["caption"], repeated.headers["etag"]) == (200, "once", '"2"')
        assert repeated.headers["idempotent-replayed"] == "true"

    run_scenario(scenario)


@pytest.mark.usefixtures("_slow_look_ups")
def test_an_edit_is_shown_as_it_is_when_the_wait_for_it_is_over(monkeypatch: pytest.MonkeyPatch, post: str) -> None:
    really_wait = waiting.Waiting.wait

    async def scenario(http: httpx.AsyncClient) -> None:
        where = (await http.patch(f"/v1/posts/{post}", json={"caption": "a"}, headers=AT_ONCE)).headers["location"]
        assert (await http.get(where, headers={"Prefer": "wait=0"})).json()["status"] == "queued"
        begun = asyncio.Event()

        def wait(*given: Any) -> asyncio.Future[EditResult | None]:
            begun.set()
            return really_wait(*given)

        monkeypatch.setattr(waiting.Waiting, "wait", wait)
        waits = asyncio.ensure_future(http.get(where, headers={"Prefer": "wait=1"}))
        await begun.wait()
        await asyncio.to_thread(apply_edits, [post])
        assert (await waits).json()["status"] == "applied"
        assert (await http.get(where, headers={"Prefer": "wait=0"})).json()["status"] == "applied"

    run_scenario(scenario)


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
def test_edits_that_nobody_waits_for_gather_behind_one_bell_until_somebody_waits(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, redis_url: str, prefer: str
) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 60)
    monkeypatch.setattr(doorbell, "LONGEST_PATIENCE", 60)
    with engine.begin() as tx:
        a, b, c, d = (factories.post(tx) for _ in range(4))

    def rung() -> list[list[str]]:
        return [arguments[0] for arguments, _ in messages_at(redis_url, "edits")]

    async def scenario(http: httpx.AsyncClient) -> None:
        for post in (a, b, c):
            answer = await http.patch(f"/v1/posts/{post}", json={"caption": "x"}, headers={"Prefer": prefer})
            assert answer.status_code == 202
        await until(lambda: rung() == [[a]])
        waits = asyncio.ensure_future(http.patch(f"/v1/posts/{d}", json={"caption": "y"}, headers={"Prefer": "wait=9"}))
        await until(lambda: rung() == [[a], [b, c, d]])
        await asyncio.to_thread(apply_edits, [d])
        assert (await waits).status_code == 200

    run_scenario(scenario)


def test_whoever_waits_for_a_held_post_holds_no_lone_edit_up(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, post: str
) -> None:
    with engine.begin() as tx:
        locked = [factories.post(tx) for _ in range(3)]

    async def scenario(http: httpx.AsyncClient) -> None:
        wait = {"Prefer": "wait=30"}
        waits = [
            asyncio.ensure_future(http.patch(f"/v1/posts/{one}", json={"caption": "x"}, headers=wait)) for one in locked
        ]
        waiters = app._built.state.context.submission.waiting
        await until(lambda: (len(waiters), waiters.may_end_soon) == (3, 0))
        for _ in range(5):  # what was under way lately is forgotten
            await http.patch(f"/v1/posts/{post}", json={"caption": "x"}, headers=AT_ONCE)
        monkeypatch.setattr(submission, "GATHER", 60)
        async with asyncio.timeout(20):
            single = await http.patch(f"/v1/posts/{post}", json={"caption": "alone"}, headers=AT_ONCE)
        assert single.status_code == 202
        await asyncio.to_thread(apply_edits, locked)
        assert [answer.status_code for answer in await asyncio.gather(*waits)] == [200] * 3
        assert (len(waiters), waiters.may_end_soon) == (0, 0)

    run_scenario(scenario)


class EndsByHand:
    """Results that a test hands out, in place of the database's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[set[str], set[str]]] = []
        self.there: dict[str, EditResult] = {}
        monkeypatch.setattr(waiting, "_read_ends", self._read)

    def _read(self, edit_ids: list[str], bodies: list[str]) -> dict[str, EditResult]:
        self.asked.append((set(edit_ids), set(bodies)))
        return {edit_id: self.there[edit_id] for edit_id in edit_ids if edit_id in self.there}


def applied(edit_id: str) -> EditResult:
    return EditResult(edit_id, EditStatus.APPLIED, 2)


def test_one_who_waits_for_many_counts_once_and_gets_them_all_when_the_last_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    EndsByHand(monkeypatch)

    async def scenario() -> None:
        one = waiting.Waiting(8, lambda _: None)
        future = one.wait_for_all(["a", "b", "c"], 30, "ws")
        assert (len(one), one.under_way_of("ws")) == (1, 1)
        one.resolve({"b": applied("b")})
        one.resolve({"a": applied("a")})
        assert not future.done()
        one.resolve({"c": applied("c")})
        assert (await future).keys() == {"a", "b", "c"}
        assert (len(one), one._by_edit) == (0, {})
        await one.close()

    asyncio.run(scenario())


def test_when_the_time_is_over_what_is_known_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    EndsByHand(monkeypatch)

    async def scenario() -> None:
        one = waiting.Waiting(8, lambda _: None)
        future = one.wait_for_all(["a", "b"], 0.05, "ws")
        one.resolve({"a": applied("a")})
        assert (await future).keys() == {"a"}
        assert (len(one), one._by_edit) == (0, {})
        last = one.wait_for_all(["c", "d"], 30, "ws")
        one.resolve({"d": applied("d")})
        await one.close()
        assert (await last).keys() == {"d"}

    asyncio.run(scenario())


def test_many_are_looked_up_together_without_bodies_and_only_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = EndsByHand(monkeypatch)

    async def scenario() -> None:
        one = waiting.Waiting(8, lambda _: None)
        many = one.wait_for_all([str(number) for number in range(100)], 30, "ws")
        single = one.wait("p", 30, "ws")
        one.resolve({"0": applied("0")})
        await until(lambda: bool(ends.asked))
        ends.there = {name: applied(name) for name in [*map(str, range(100)), "p"]}
        await many
        await single
        await one.close()

    asyncio.run(scenario())
    looked_up = set().union(*(edit_ids for edit_ids, _ in ends.asked))
    assert looked_up == {"p", *map(str, range(1, 100))}
    assert set().union(*(bodies for _, bodies in ends.asked)) == {"p"}
    assert len(ends.asked) < 8


def test_an_edit_that_stays_queued_hides_the_others_of_its_request_no_longer_than_a_few_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Announcements are lost, and one of the posts is locked for ever."""
    monkeypatch.setattr(waiting, "SILENCE", 0.01)
    ends = EndsByHand(monkeypatch)
    ends.there = {name: applied(name) for name in map(str, range(1, 50))}

    async def scenario() -> None:
        one = waiting.Waiting(8, lambda _: None)
        many = one.wait_for_all([str(number) for number in range(50)], 30, "ws")
        (waiter,) = one._waiters
        await until(lambda: waiter.edit_ids == {"0"})
        assert not many.done()
        ends.there["0"] = applied("0")
        assert len(await many) == 50
        await one.close()

    asyncio.run(scenario())
