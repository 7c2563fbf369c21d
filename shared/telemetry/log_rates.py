"""How many lines of one kind a process writes: some at once, then a few a minute, and what is left out is counted.

Clients decide how many requests are refused. Without this limit they would also decide how fast a disk fills.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

BURST: Final = 60
"""Lines of one kind that are written at once, after a time without any."""

A_SECOND: Final = 1.0
"""Lines of one kind that are written from then on."""

KINDS_MAX: Final = 500
"""Kinds that are counted apart. Kinds come from our code and not from clients; this holds should that ever be wrong."""


@dataclass(slots=True)
class _Kind:
    left: float
    at: float
    left_out: int = 0

    def level(self, now: float) -> float:
        return min(BURST, self.left + max(0.0, now - self.at) * A_SECOND)


class Rates:
    """A bucket of BURST lines for each kind, refilled by A_SECOND. `now`: a clock in seconds. Safe in threads."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Re-entrant: a signal's handler may log in the middle of a line. New in a child: a fork may come in one, too.
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._forked)
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self.left_out = 0

    def admit(self, kind: Hashable) -> int | None:
        """None where the line is to be left out; else how many of its kind were, since the one written last."""
        with self._lock:
            now = self._now()
            found = self._bucket(kind, now)
            found.left, found.at = found.level(now), now
            if found.left < 1:
                found.left_out += 1
                self.left_out += 1
                return None
            found.left -= 1
            left_out, found.left_out = found.left_out, 0
            return left_out

    def _forked(self) -> None:
        self._lock = threading.RLock()

    def _bucket(self, kind: Hashable, now: float) -> _Kind:
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            oldest, bucket = next(iter(self._kinds.items()))
            if bucket.level(now) >= BURST:
                del self._kinds[oldest]
            else:
                # No room for one more: it shares a bucket with all others that came too late.
                kind = None
        found = self._kinds.setdefault(kind, _Kind(BURST, now))
        self._kinds.move_to_end(kind)
        return found
