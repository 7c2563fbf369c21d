"""What a call costs in CPU time, against the bound of linear work.

The bounds are some twenty times what linear work takes here; quadratic work at these sizes misses them a hundredfold.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shared.cli import reschedule_csv
from shared.domain.errors import RedraftError

WITHIN = 0.1
"""Seconds of CPU for what a head or a body of 128 KiB holds."""

BULK_WITHIN = 2.0
"""Seconds of CPU for 2 MiB."""


@contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """Ends what takes far too long, so that a failure costs seconds and not the quarter of an hour that it would."""

    def over(*_: object) -> None:
        raise AssertionError(f"more than {seconds} s of CPU, and no end in sight")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def affordable(call: Callable[[], Any], within: float) -> bool:
    """Whether to accept or to refuse takes that many seconds of CPU at most. A core that is shared may try again."""
    return any(cost(call, within) < within for _ in range(3))


def cost(call: Callable[[], Any], within: float) -> float:
    # A collection looks at all that the tests of this run have made so far.
    gc.disable()
    with cut_off(50 * within), suppress(RedraftError, reschedule_csv.BadFileError):
        began = time.thread_time()
        try:
            call()
        finally:
            took = time.thread_time() - began
            gc.enable()
    return took
