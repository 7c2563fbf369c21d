"""Turns on the event loop and on threads: a flood of one workspace holds up no other's request."""

import asyncio
import threading

import pytest

from api.http import turns
from api.http.turns import A_ROUND, FairThreads, Turns


async def come_in(turn: Turns, owner: str, order: list[str]) -> None:
    if (mine := turn.turn(owner)) is not None:
        await mine
    order.append(owner)


def test_a_request_of_another_workspace_begins_in_the_round_after_the_one_in_which_it_came() -> None:
    async def scenario() -> None:
        turn, order = Turns(), list[str]()
        tasks = [asyncio.create_task(come_in(turn, "flood", order)) for _ in range(1000)]
        tasks.append(asyncio.create_task(come_in(turn, "quiet", order)))
        await asyncio.gather(*tasks)
        assert len(order) == 1001
        assert order.index("quiet") <= 2 * A_ROUND

    asyncio.run(scenario())


def test_few_requests_wait_for_nothing() -> None:
    async def scenario() -> None:
        turn = Turns()
        for _ in range(5):
            for _ in range(A_ROUND):
                assert turn.turn("a") is None
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_who_has_gone_meanwhile_takes_no_turn() -> None:
    async def scenario() -> None:
        turn, order = Turns(), list[str]()
        tasks = [asyncio.create_task(come_in(turn, "a", order)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[A_ROUND : A_ROUND + 50]:
            task.cancel()
        await asyncio.wait(tasks)
        assert len(order) == 50

    asyncio.run(scenario())


def test_no_workspace_has_all_threads_and_calls_that_wait_are_run_in_turn() -> None:
    async def scenario() -> None:
        threads, go_on, order = FairThreads(4, "test"), threading.Event(), list[str]()
        began = threading.Semaphore(0)

        def slow() -> None:
            began.release()
            assert go_on.wait(10)

        def call(owner: str, work: object = None) -> asyncio.Future[None]:
            turns.owner.set(owner)
            return threads.run(slow if work is None else lambda: order.append(owner))

        flood = [call("flood") for _ in range(50)]
        for _ in range(3):
            assert await asyncio.to_thread(began.acquire, timeout=10)
        async with asyncio.timeout(10):
            await call("quiet", "work")
        assert order == ["quiet"]
        assert not began.acquire(blocking=False), "the fourth thread is kept"
        after = [call("flood", "work"), call("other", "work"), call("other", "work")]
        for one in flood[3:]:
            one.cancel()
        go_on.set()
        await asyncio.gather(*flood[:3], *after)
        assert sorted(order) == ["flood", "other", "other", "quiet"]
        threads.close()

    asyncio.run(scenario())


def test_what_a_call_raises_is_raised_and_what_was_given_up_is_never_called() -> None:
    async def scenario() -> None:
        threads, go_on, called = FairThreads(1, "test"), threading.Event(), list[int]()

        def fail() -> None:
            raise LookupError("this one")

        first = threads.run(lambda: go_on.wait(10))
        second = threads.run(lambda: called.append(1))
        third = threads.run(fail)
        second.cancel()
        go_on.set()
        assert await first
        with pytest.raises(LookupError, match="this one"):
            await third
        assert called == []
        threads.close()

    asyncio.run(scenario())


def test_a_thread_sees_whose_request_it_works_for() -> None:
    async def scenario() -> None:
        threads = FairThreads(1, "test")
        turns.owner.set("ws_1")
        assert await threads.run(turns.owner.get) == "ws_1"
        threads.close()

    asyncio.run(scenario())
