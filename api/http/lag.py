"""Measures how long the event loop was blocked. While it is blocked, all requests of the process wait."""

import asyncio
import time
from collections.abc import Callable

import structlog

PERIOD = 0.1
"""Seconds between two looks at the clock. A block is measured at most this much too short."""

WINDOW = 60.0
"""Seconds. A block is shown for half of them at least, which is longer than the time between two scrapes."""

WORTH_LOGGING = 0.25
"""Seconds of a block that gets a line in the log."""

log = structlog.get_logger(__name__)


class Longest:
    """The longest length of the last half to whole window, in seconds. Pure: callers give the time."""

    def __init__(self, window: float) -> None:
        self._half = window / 2
        self._turn = 0
        self._current = self._previous = 0.0

    def note(self, length: float, at: float) -> None:
        self._turned(at)
        self._current = max(self._current, length)

    def at(self, at: float) -> float:
        self._turned(at)
        return max(self._current, self._previous)

    def _turned(self, at: float) -> None:
        turn = int(at // self._half)
        if turn != self._turn:
            self._previous = self._current if turn == self._turn + 1 else 0.0
            self._turn, self._current = turn, 0.0


class Lag:
    """Looks at the clock every PERIOD, on the event loop that it is made on, from `start` to `stop`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._longest = Longest(WINDOW)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        self._due = self._clock() + PERIOD
        self._timer = self._loop.call_later(PERIOD, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def seconds(self) -> float:
        """The longest block of the last half minute to minute, in seconds."""
        return self._longest.at(self._clock())

    def _look(self) -> None:
        now = self._clock()
        self.note(now - self._due, now)
        self.start()

    def note(self, late: float, now: float) -> None:
        """A look at the clock came `late` seconds late."""
        self._longest.note(max(0.0, late), now)
        if late > WORTH_LOGGING:
            log.warning("event_loop_held", seconds=round(late, 3))
