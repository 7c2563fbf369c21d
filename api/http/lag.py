"""How long the event loop was held up. Whatever holds it, a bug or a stranger's request, stops everybody's requests."""

import asyncio
import time
from collections.abc import Callable

import structlog

PERIOD = 0.1
"""Seconds between two looks; a hold is measured as at most that much shorter than it was."""

WINDOW = 60.0
"""Seconds for which a hold is shown at least half: longer than between two scrapes."""

WORTH_LOGGING = 0.25
"""Seconds. A hold that long is worth a line in the log."""

log = structlog.get_logger(__name__)


class Longest:
    """The longest of the last half to whole window. Pure: times are given."""

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
        """The longest hold of the last half minute to minute."""
        return self._longest.at(self._clock())

    def _look(self) -> None:
        now = self._clock()
        self.note(now - self._due, now)
        self.start()

    def note(self, late: float, now: float) -> None:
        """A look came that many seconds too late."""
        self._longest.note(max(0.0, late), now)
        if late > WORTH_LOGGING:
            log.warning("event_loop_held", seconds=round(late, 3))
