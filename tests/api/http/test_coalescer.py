"""Callers that come while a round is under way share the next round."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.http.coalescer import Coalescer
from tests.waiting import until


class Rounds:
    """The rounds that were run, each of which waits until it is let go on; a key's value is the key in capitals."""

    def __init__(self) -> None:
        self.keys: list[list[str]] = []
        self.go_on = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self, keys: list[str]) -> dict[str, str]:
        self.keys.append(keys)
        await self.go_on.acquire()
        if self.error is not None:
            raise self.error
        return {key: key.upper() for key in keys}

    async def reach(self, number: int) -> None:
        await until(lambda: len(self.keys) >= number)


def run(scenario: Callable[[Rounds], Awaitable[None]]) -> None:
    async def within_a_loop() -> None:
        await scenario(Rounds())

    asyncio.run(within_a_loop())


@pytest.mark.parametrize(
    ("most", "first", "meanwhile", "rounds"),
    [
        (None, "a", "", [["a"]]),
        (None, "a", "bcd", [["a"], ["b", "c", "d"]]),
        (None, "abc", "bcd", [["a", "b", "c"], ["d"]]),
        (None, "aab", "ccd", [["a", "b"], ["c", "d"]]),
        (2, "abc", "d", [["a", "b"], ["c", "d"]]),
        (2, "a", "bcdX", [["a"], ["X", "b"], ["c", "d"]]),
        (None, "a", "bXcY", [["a"], ["X", "Y", "b", "c"]]),
    ],
    ids=["alone", "share the next", "in the round under way", "one key twice", "at most", "urgent, at most", "urgent"],
)
def test_keys_are_asked_for_in_rounds(most: int | None, first: str, meanwhile: str, rounds: list[list[str]]) -> None:
    """`first` are asked for before any round, `meanwhile` while the first round is under way; capitals are urgent."""

    async def scenario(ran: Rounds) -> None:
        coalescer: Coalescer[str, str] = Coalescer(ran, most)
        asked = [coalescer.ask(key) for key in first]
        await ran.reach(1)
        asked += [coalescer.ask(key, urgent=key.isupper()) for key in meanwhile]
        for _ in rounds:
            ran.go_on.release()
        assert await asyncio.gather(*asked) == [key.upper() for key in first + meanwhile]
        assert ran.keys == rounds

    run(scenario)


def test_a_key_that_was_answered_is_asked_for_anew() -> None:
    async def scenario(ran: Rounds) -> None:
        coalescer: Coalescer[str, str] = Coalescer(ran)
        for _ in range(2):
            ran.go_on.release()
            assert await coalescer.ask("a") == "A"
        assert ran.keys == [["a"], ["a"]]

    run(scenario)


def test_an_error_goes_to_the_callers_of_its_round_and_the_next_round_is_run() -> None:
    async def scenario(ran: Rounds) -> None:
        coalescer: Coalescer[str, str] = Coalescer(ran)
        failing = [coalescer.ask(key) for key in "ab"]
        await ran.reach(1)
        next_one = coalescer.ask("c")
        ran.error = OSError("away")
        ran.go_on.release()
        for future in failing:
            with pytest.raises(OSError, match="away"):
                await future
        await ran.reach(2)
        ran.error = None
        ran.go_on.release()
        assert await next_one == "C"

    run(scenario)


def test_a_round_that_names_no_value_for_a_key_fails_for_that_key_alone() -> None:
    async def half(_: list[str]) -> dict[str, str]:
        return {"a": "A"}

    async def scenario(_: Rounds) -> None:
        coalescer: Coalescer[str, str] = Coalescer(half)
        known, unknown = coalescer.ask("a"), coalescer.ask("b")
        assert await known == "A"
        with pytest.raises(KeyError):
            await unknown

    run(scenario)


def test_a_caller_that_gives_up_stops_neither_its_round_nor_the_others() -> None:
    async def scenario(ran: Rounds) -> None:
        coalescer: Coalescer[str, str] = Coalescer(ran)
        gone, stays = coalescer.ask("a"), coalescer.ask("b")
        await ran.reach(1)
        gone.cancel()
        ran.go_on.release()
        assert await stays == "B"

    run(scenario)


def test_after_its_event_loop_has_ended_it_serves_the_next_one() -> None:
    asked: list[Any] = []

    async def never(_: list[str]) -> dict[str, str]:
        nothing: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        return await nothing

    async def at_once(keys: list[str]) -> dict[str, str]:
        return {key: key.upper() for key in keys}

    rounds = [never, at_once]

    async def next_round(keys: list[str]) -> dict[str, str]:
        return await rounds.pop(0)(keys)

    coalescer: Coalescer[str, str] = Coalescer(next_round)

    async def begin() -> None:
        asked.append(coalescer.ask("a"))
        await asyncio.sleep(0)

    async def ask_anew() -> str:
        return await coalescer.ask("a")

    asyncio.run(begin())
    assert asked[0].cancelled()
    assert asyncio.run(ask_anew()) == "A"
