"""Room for calls, their threads, and answers as they come."""

import threading
import time
from weakref import WeakSet

import pytest

from shared.domain.service_answers import Reply
from tests.worker.fake_services import in_thread
from worker.outbound import call_pool as module
from worker.outbound.call_pool import CallPool, Completed, InFlight, finish_or_keep

DONE = Reply("done")


def test_no_more_calls_are_made_at_once_than_there_is_room_for() -> None:
    calls = CallPool(3)
    assert calls.take(2, 0) == 2
    assert calls.take(2, 0) == 1
    assert calls.take(2, 0) == 0
    calls.give_back(2)
    assert calls.take(5, 0) == 2


def test_room_that_becomes_free_goes_to_whoever_waits() -> None:
    calls, got = CallPool(1), []
    calls.take(1, 0)
    with in_thread(lambda: got.append(calls.take(1, 10))):
        calls.give_back(1)
    assert got == [1]


def test_whoever_wants_much_waits_a_moment_for_room_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY_GATHERS", 10.0)
    calls, got = CallPool(40), []
    calls.take(40, 0)
    with in_thread(lambda: got.append(calls.take(40, 10))) as waiting:
        for _ in range(31):
            calls.give_back(1)
        assert (got, waiting.is_alive()) == ([], True)
        calls.give_back(1)
    assert got == [32]


def test_one_that_stops_lets_go_of_who_waits_and_gives_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CallPool, "_every", WeakSet())
    calls, got = CallPool(1), []
    calls.take(1, 0)
    started = time.monotonic()
    with in_thread(lambda: got.append(calls.take(1, 30))):
        module.stop_all()
    calls.give_back(1)
    assert (got, calls.take(1, 0)) == ([0], 0)
    assert time.monotonic() - started < 10


def test_answers_come_as_calls_end_and_room_is_free_again() -> None:
    calls = CallPool(3)
    in_flight: InFlight[int] = InFlight(calls)
    ends = {1: threading.Event(), 2: threading.Event(), 3: threading.Event()}

    def make(number: int) -> Reply:
        ends[number].wait(10)
        return Reply("done", {"number": number})

    assert calls.take(3, 0) == 3
    for number in ends:
        in_flight.start(number, make)
    assert in_flight.completed(0) == []
    ends[2].set()
    (one,) = in_flight.completed(10)
    assert (one.item, one.reply.data, in_flight.count) == (2, {"number": 2}, 2)
    ends[1].set()
    ends[3].set()
    found: list[int] = []
    while in_flight.count:
        found += [one.item for one in in_flight.completed(10)]
    assert sorted(found) == [1, 3]
    assert calls.take(5, 10) == 3
    assert in_flight.completed(0) == []


def test_a_surprise_in_a_call_is_an_unknown_outcome_and_gives_its_room_back() -> None:
    def make(_: int) -> Reply:
        raise ZeroDivisionError

    calls = CallPool(1)
    in_flight: InFlight[int] = InFlight(calls)
    calls.take(1, 0)
    in_flight.start(1, make)
    (one,) = in_flight.completed(10)
    assert one.reply == Reply("unknown", message="ZeroDivisionError")
    assert calls.take(1, 10) == 1


def test_an_end_that_cannot_be_written_down_is_kept_for_as_long_as_the_claim_may_last() -> None:
    def away(_: object) -> list[Completed[int]]:
        raise TimeoutError

    now = time.monotonic()
    fresh, old = Completed(1, DONE, now), Completed(2, DONE, now - 61)
    assert finish_or_keep([fresh, old], away, 60) == [fresh]
    assert finish_or_keep([fresh], list, 60) == [fresh]
    assert finish_or_keep([fresh], lambda _: [], 60) == []


def test_a_surprise_while_an_end_is_written_down_is_raised() -> None:
    def broken(_: object) -> list[Completed[int]]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        finish_or_keep([Completed(1, DONE, time.monotonic())], broken, 60)
