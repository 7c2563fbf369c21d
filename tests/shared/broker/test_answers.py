"""Answers between processes: announced by one, heard by the other, through a Redis that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import redis
import redis.asyncio
import structlog
import structlog.testing

from shared.broker import answers, redis_connection
from shared.broker.answers import Answer, Listener
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from tests import factories
from tests.faults.proxy import Proxy
from tests.waiting import until


def announce(address: str, results: list[EditResult], *, more: bool = False) -> bool:
    return answers.announce([answers.announcement(address, results, more=more)])


END = EditResult("edit_1", EditStatus.APPLIED, 4, result='{"caption": "ü"}')
REJECTED = EditResult(
    "edit_2", EditStatus.REJECTED, 4, error_code="cannot_edit", error_message="no", error_details=[{"a": "b"}]
)


@contextmanager
def redis_at(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[None]:
    monkeypatch.setenv("REDRAFT_REDIS_URL", url)
    factories.forget_caches()
    try:
        yield
    finally:
        factories.forget_caches()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Proxy]:
    """The way to Redis, of both sides."""
    with Proxy(redis_url) as proxy, redis_at(monkeypatch, proxy.url):
        yield proxy


class Ear:
    """A listener, and what it heard."""

    def __init__(self, broker: redis.asyncio.Redis) -> None:
        self.heard: list[Answer] = []
        self.listener = Listener(broker, "redraft:answers:test-ear", self.heard.append)

    async def until_it_hears(self, bell: int) -> None:
        """Announce until it is heard: pub/sub forgets what nobody listens to."""

        def heard() -> bool:
            announce(answers.address(self.listener.channel, bell), [])
            return any(answer.bell == bell for answer in self.heard)

        await until(heard)


@asynccontextmanager
async def listening() -> AsyncIterator[Ear]:
    async with redis_connection.client_on_loop() as broker:
        ear = Ear(broker)
        ear.listener.start()
        try:
            await ear.until_it_hears(0)
            yield ear
        finally:
            await ear.listener.stop()


@pytest.mark.usefixtures("wire")
def test_an_answer_is_heard_as_it_was_announced() -> None:
    async def story() -> None:
        async with listening() as ear:
            there = answers.address(ear.listener.channel, 7)
            assert await asyncio.to_thread(announce, there, [END, REJECTED])
            await until(lambda: Answer(7, {"edit_1": END, "edit_2": REJECTED}) in ear.heard)

    asyncio.run(story())


@pytest.mark.usefixtures("wire")
def test_ends_that_are_told_early_say_that_the_bell_has_more_to_say() -> None:
    async def story() -> None:
        async with listening() as ear:
            there = answers.address(ear.listener.channel, 7)
            assert await asyncio.to_thread(announce, there, [END], more=True)
            await until(lambda: Answer(7, {"edit_1": END}, more=True) in ear.heard)
            assert await asyncio.to_thread(announce, there, [REJECTED])
            await until(lambda: Answer(7, {"edit_2": REJECTED}) in ear.heard)

    asyncio.run(story())


@pytest.mark.usefixtures("wire")
def test_what_nobody_of_ours_said_is_not_heard_and_does_no_harm(redis_url: str) -> None:
    async def story() -> None:
        async with listening() as ear:
            with redis.Redis.from_url(redis_url) as stranger:
                for noise in (
                    b"",
                    b"null",
                    b"[1]",
                    b"[1, [[2]]]",
                    b'["x", []]',
                    b"\xff",
                    b'[1, [["e", "nonsense", 1]]]',
                ):
                    assert stranger.publish(ear.listener.channel, noise) == 1
            await ear.until_it_hears(5)
            assert {answer.bell for answer in ear.heard} == {0, 5}

    asyncio.run(story())


@pytest.mark.parametrize("reset", [True, False])
def test_a_listener_that_was_cut_off_hears_again(wire: Proxy, reset: bool) -> None:
    async def story() -> None:
        async with listening() as ear:
            for bell in range(1, 4):
                assert await asyncio.to_thread(wire.cut, reset=reset)
                await ear.until_it_hears(bell)

    asyncio.run(story())


def test_a_listener_survives_a_redis_that_refuses_it_for_a_while(wire: Proxy) -> None:
    async def story() -> None:
        async with listening() as ear:
            await asyncio.to_thread(wire.refuse)
            await asyncio.to_thread(wire.cut)
            assert not await asyncio.to_thread(announce, answers.address(ear.listener.channel, 1), [])
            await asyncio.to_thread(wire.heal)
            await ear.until_it_hears(2)

    asyncio.run(story())


def test_a_listener_that_hears_nothing_asks_and_without_an_answer_begins_anew(
    wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SILENT_AT_MOST", 0.0)
    monkeypatch.setattr(answers, "ANSWERS_WITHIN", 0.5)

    async def story() -> None:
        async with listening() as ear:
            wire.swallow(["down"])
            await asyncio.to_thread(announce, answers.address(ear.listener.channel, 1), [])
            await asyncio.to_thread(wire.heal)  # but not for the connections that are there
            await asyncio.to_thread(redis_connection.client().close)
            await ear.until_it_hears(2)

    asyncio.run(story())


@pytest.mark.usefixtures("wire")
def test_a_silent_channel_that_answers_is_kept(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(answers, "SILENT_AT_MOST", 0.0)
    with redis.Redis.from_url(redis_url) as broker:

        def listeners() -> list[str]:
            return [
                one["id"] for one in broker.client_list() if one["cmd"] in ("subscribe", "ping") and one["sub"] == "1"
            ]

        def pings() -> int:
            return int(broker.info("commandstats")["cmdstat_ping"]["calls"])

        async def story() -> None:
            async with listening() as ear:
                before = await asyncio.to_thread(listeners)
                asked = await asyncio.to_thread(pings)
                await until(lambda: pings() >= asked + 2)
                await ear.until_it_hears(1)
                assert await asyncio.to_thread(listeners) == before

        asyncio.run(story())


@pytest.mark.usefixtures("wire")
def test_a_surprise_while_hearing_does_not_end_the_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "log", structlog.get_logger())  # a logger keeps the processors of its first line

    async def story() -> None:
        async with listening() as ear:
            keep = ear.heard.append

            def hear(answer: Answer) -> None:
                keep(answer)
                if answer.bell == 1:
                    raise LookupError

            monkeypatch.setattr(ear.listener, "_hear", hear)
            await ear.until_it_hears(1)
            await ear.until_it_hears(2)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(story())
    assert {line["event"] for line in lines} == {"hearing_failed"}


def test_a_listener_that_is_told_to_stop_at_any_moment_of_its_beginning_stops(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    async def begin_and_stop(steps: int) -> bool:
        async with redis_connection.client_on_loop() as broker:
            listener = Listener(broker, "redraft:answers:test-brief", lambda _: None)
            listener.start()
            for _ in range(steps):
                await asyncio.sleep(0)
            stopping = asyncio.create_task(listener.stop())
            stopped, _ = await asyncio.wait([stopping], timeout=3)
            while listener._hearing and not listener._hearing.done():
                listener._hearing.cancel()  # a loop that is to end would wait for it, and be no more successful
                await asyncio.sleep(0.1)
            return bool(stopped)

    with redis_at(monkeypatch, redis_url):
        assert all(asyncio.run(begin_and_stop(steps)) for steps in range(40))
