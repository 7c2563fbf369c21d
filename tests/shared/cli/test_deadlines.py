"""Questions that are asked at the same time: none hides another, and none is waited for beyond its deadline."""

import threading
import time

from shared.cli.deadlines import ask_all


def test_one_that_hangs_and_one_that_fails_hide_no_other() -> None:
    over = threading.Event()

    def fails() -> None:
        raise KeyError("gone")

    began = time.monotonic()
    found = ask_all(
        {"hangs": (over.wait, 0.2), "fails": (fails, 30.0), "answers": (lambda: 7, 30.0), "none": (lambda: None, 30.0)}
    )
    took = time.monotonic() - began
    over.set()
    assert list(found) == ["hangs", "fails", "answers", "none"]
    assert isinstance(found["hangs"], TimeoutError)
    assert isinstance(found["fails"], KeyError)
    assert (found["answers"], found["none"]) == (7, None)
    assert 0.2 <= took < 20


def test_each_has_a_deadline_of_its_own() -> None:
    first, second = threading.Event(), threading.Event()

    def slow() -> str:
        # It ends after the other's deadline has passed.
        assert first.wait(20)
        return "slow"

    def hangs() -> None:
        second.wait(0.3)
        first.set()
        second.wait(20)

    found = ask_all({"hangs": (hangs, 0.1), "slow": (slow, 20.0)})
    second.set()
    assert isinstance(found["hangs"], TimeoutError)
    assert found["slow"] == "slow"


def test_nothing_asked_is_nothing_found() -> None:
    assert ask_all({}) == {}
