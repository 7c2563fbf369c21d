"""How many lines of a kind are written: a burst, then one a second, and the next says how many were not."""

import os
import signal
import threading

from shared.telemetry.log_rates import A_SECOND, BURST, KINDS_MAX, Rates


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def burst(rates: Rates, kind: object, count: int) -> int:
    """How many of so many lines are written."""
    return sum(rates.admit(kind) is not None for _ in range(count))


def test_a_burst_is_written_and_the_rest_is_counted() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert burst(rates, "a", BURST + 500) == BURST
    assert rates.left_out == 500
    clock.now += 1 / A_SECOND
    assert rates.admit("a") == 500
    assert rates.admit("a") is None
    clock.now += 1 / A_SECOND
    assert rates.admit("a") == 1


def test_a_flood_that_goes_on_writes_one_a_second() -> None:
    clock = Clock()
    rates = Rates(clock)
    written = 0
    for _ in range(600):
        clock.now += 1.0
        written += burst(rates, "a", 10)
    assert written <= BURST + 600 * A_SECOND


def test_a_kind_that_fell_silent_has_its_burst_again_and_no_more() -> None:
    clock = Clock()
    rates = Rates(clock)
    burst(rates, "a", BURST)
    clock.now += 100 * BURST
    assert burst(rates, "a", BURST + 1) == BURST


def test_kinds_do_not_take_from_each_other() -> None:
    rates = Rates(Clock())
    burst(rates, "a", BURST + 1)
    assert rates.admit("b") == 0


def test_made_up_kinds_share_one_bucket_once_there_are_too_many() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert sum(burst(rates, number, 1) for number in range(KINDS_MAX + 10 * BURST)) == KINDS_MAX + BURST
    assert len(rates._kinds) <= KINDS_MAX + 1
    clock.now += 2 * BURST / A_SECOND
    assert rates.admit("new") == 0, "kinds that fell silent make room"
    assert len(rates._kinds) <= KINDS_MAX + 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = Clock()
    rates = Rates(clock)
    burst(rates, "a", BURST)
    clock.now -= 1000
    assert rates.admit("a") is None


def test_a_child_that_is_forked_in_the_middle_of_a_line_writes_lines() -> None:
    rates = Rates(Clock())
    began, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with rates._lock:
            began.set()
            go_on.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait(10)
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        os._exit(0 if rates.admit("a") == 0 else 1)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
