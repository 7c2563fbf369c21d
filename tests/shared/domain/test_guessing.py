"""Guessing passwords is slow, by source and in all, and the right one is always let in."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable

import pytest

from shared.domain import guessing
from shared.domain.guessing import ALL_FREE, FREE, MOST, PASS_LIVES, Guesses, Passes, Verdict, basic, wait_for


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def stays() -> None:
    await asyncio.Event().wait()


def leaves(event: asyncio.Event) -> Callable[[], Awaitable[object]]:
    return event.wait


@pytest.mark.parametrize(
    ("level", "seconds"),
    [(1, 0), (FREE, 0), (FREE + 1, 0.25), (FREE + 2, 0.5), (FREE + 3, 1), (FREE + 5, 4), (FREE + 6, MOST), (1e9, MOST)],
)
def test_each_guess_too_many_doubles_the_wait_up_to_a_bound(level: float, seconds: float) -> None:
    assert wait_for(level, FREE) == seconds


def test_wrong_ones_are_forgotten_ten_a_minute(clock: Clock) -> None:
    guesses = Guesses(clock)
    waits = [guesses.arrives("a") for _ in range(20)]
    assert waits[:FREE] == [0] * FREE
    assert waits[-1] == MOST
    clock.now += 31
    assert guesses.arrives("a") == pytest.approx(0.25 * 2**0.83, rel=0.01), "five of them have been forgotten"
    clock.now += 600
    assert guesses.arrives("a") == 0


def test_other_sources_do_not_wait_for_one_that_guesses_until_it_is_many(clock: Clock) -> None:
    guesses = Guesses(clock)
    for _ in range(ALL_FREE - 1):
        guesses.arrives("a")
    assert guesses.arrives("b") == 0
    assert max(guesses.arrives(f"host {n}") for n in range(20)) == MOST, "many addresses are as slow as one"


def test_who_was_right_does_not_wait_for_what_others_guess(clock: Clock) -> None:
    guesses = Guesses(clock)
    guesses.arrives("operator")
    guesses.was_right("operator")
    for number in range(1000):
        guesses.arrives(f"host {number}")
    assert guesses.arrives("stranger") == MOST
    assert guesses.arrives("operator") == 0


def test_being_right_takes_back_what_was_counted(clock: Clock) -> None:
    guesses = Guesses(clock)
    for _ in range(1000):
        assert guesses.arrives("operator") == 0
        guesses.was_right("operator")


def test_it_remembers_no_more_sources_than_it_may(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "SOURCES_AT_MOST", 3)
    guesses = Guesses(clock)
    for number in range(10):
        guesses.arrives(f"host {number}")
    assert len(guesses._sources) == 3


def test_the_right_password_is_let_in_whatever_was_guessed_before_and_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the very address that a thousand guesses come from, at once, and not before they hear theirs either."""
    monkeypatch.setattr(guessing, "MOST", 0.2)

    async def run() -> None:
        guesses = Guesses()
        heard: list[bool] = []

        async def attempt(*, right: bool) -> Verdict:
            verdict = await guesses.judge("a", stays, right=right)
            heard.append(right)
            return verdict

        wrong = [asyncio.create_task(attempt(right=False)) for _ in range(1000)]
        await asyncio.sleep(0)
        assert len(heard) == FREE, "no more than the free ones were answered at once"
        assert await attempt(right=True) is Verdict.RIGHT
        assert set(await asyncio.gather(*wrong)) == {Verdict.WRONG}
        assert heard.index(True) > 900, "those that waited longer hear first: the right one is not known by its speed"
        assert guesses._waiting == 0

    asyncio.run(run())


def test_who_hangs_up_early_learns_nothing_and_frees_its_place() -> None:
    async def run() -> None:
        guesses, left = Guesses(), asyncio.Event()
        for _ in range(FREE + 6):
            guesses.arrives("a")
        attempts = [asyncio.create_task(guesses.judge("a", leaves(left), right=number == 7)) for number in range(20)]
        await asyncio.sleep(0)
        assert guesses._waiting == 20
        left.set()
        assert set(await asyncio.gather(*attempts)) == {Verdict.GONE}
        assert guesses._waiting == 0
        assert guesses.arrives("a") == MOST

    asyncio.run(run())


def test_where_too_many_wait_an_attempt_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "WAITING_AT_MOST", 3)

    async def run() -> None:
        guesses = Guesses()
        for _ in range(FREE):
            guesses.arrives("a")
        waiting = [asyncio.create_task(guesses.judge("a", stays, right=False)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await guesses.judge("a", stays, right=True) is Verdict.CROWDED
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert guesses._waiting == 0

    asyncio.run(run())


def test_a_pass_stands_for_its_client_and_ends_with_its_time_and_the_password() -> None:
    passes, now = Passes("ops", "secret"), 1_000_000.0
    shown = passes.new(now)
    source, known = passes.source(shown, "203.0.113.9", now)
    assert known
    assert source == passes.source(shown, "198.51.100.1", now)[0], "wherever it comes from"
    assert source != passes.source(passes.new(now), "203.0.113.9", now)[0], "each is a source of its own"
    address = ("203.0.113.9", False)
    assert passes.source(shown, "203.0.113.9", now + PASS_LIVES + 1) == address
    assert passes.source(shown, "203.0.113.9", now - 3600) == address
    assert Passes("ops", "other").source(shown, "203.0.113.9", now) == address
    for forged in (None, "", "x", "..", shown[:-1], f"{shown}0", "9" * 400, "1.ü.ü", shown.replace(".", ".x", 1)):
        assert passes.source(forged, "203.0.113.9", now) == address
    assert passes.source(None, "2001:db8::1", now) == ("2001:db8::/64", False)


def test_a_line_in_the_log_tells_of_all_wrong_ones_since_the_last(clock: Clock) -> None:
    guesses = Guesses(clock)
    assert [guesses.worth_a_line() for _ in range(1000)] == [1] + [0] * 999
    clock.now += 10
    assert guesses.worth_a_line() == 1000


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("Basic " + b64encode(b"a:b").decode(), ("a", "b")),
        ("basic  " + b64encode("a:ü:".encode()).decode(), ("a", "ü:")),
        ("Basic " + b64encode(b"ab").decode(), None),
        ("Basic", None),
        ("Basic !!!", None),
        ("Basic /w==", None),
        ("Bearer YTpi", None),
        ("", None),
    ],
)
def test_user_and_password_are_read_as_rfc_7617_has_them(header: str, read: tuple[str, str] | None) -> None:
    assert basic(header) == read
