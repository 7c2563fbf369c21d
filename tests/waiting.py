"""Waiting on a condition, with a deadline: how tests wait for anything (never by a sleep of a guessed length)."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


# `Callable[..., T]`: for `Callable[[], T]` mypy cannot infer a lambda with defaults (`lambda x=x: ...`).
def eventually(condition: Callable[..., T | None], *, within: float, every: float = 0.02, because: str = "") -> T:
    """The first truthy value of `condition`, asked every `every` seconds; AssertionError after `within` seconds.

    An AssertionError from the condition counts as "not yet", and is shown if it never comes true.
    """
    deadline = time.monotonic() + within
    while True:
        error: AssertionError | None = None
        value = None
        try:
            value = condition()
        except AssertionError as unmet:
            error = unmet
        if error is None and value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {because or condition}; last: {value!r}") from error
        time.sleep(every)


async def until(condition: Callable[[], bool]) -> None:
    """`eventually`, within ten seconds, in a thread of its own: the loop goes on meanwhile."""
    await asyncio.to_thread(eventually, condition, within=10)
