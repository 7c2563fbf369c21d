"""The API as tests start it, with a watchdog: it says on standard error when a request held the event loop.

`uvicorn tests.watched_api:app`. The product has the same figure for operators (api/http/lag.py). This one leaves out
the time in which the loop's thread was ready to run and had no core: tests share theirs. Waiting for the interpreter's
lock, which other threads may hold just as long, and for a disk or a server stays in.
"""

import os
import threading
from functools import cache

from api.app import app
from api.http import lag
from tests.watchdog import HELD, SAID

__all__ = ["app"]

lag.PERIOD = 0.02
_note = lag.Lag.note


@cache
def _schedstat(thread: int) -> int:
    # Opened once: it is read fifty times a second.
    return os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)


def _without_core() -> float:
    """Seconds so far in which this thread could run and had no core (proc(5), schedstat); 0 where no kernel says so."""
    try:
        return int(os.pread(_schedstat(threading.get_native_id()), 100, 0).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


_before = 0.0


def note(self: lag.Lag, late: float, now: float) -> None:
    global _before
    before, _before = _before, _without_core()
    held = late - (_before - before)
    if held > HELD:
        os.write(2, f"{SAID} {held:.3f} s\n".encode())
    _note(self, late, now)


lag.Lag.note = note  # type: ignore[method-assign]
