"""Calls of outside services side by side: how many at once, in which threads, and their answers as they come.

A task takes capacity for its calls before it claims their posts: a claim must not expire behind calls that hang.
"""

import resource
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import ClassVar, Generic, TypeVar
from weakref import WeakSet

import structlog

from shared.domain.service_answers import Outcome, Reply
from shared.store import db

# Answers that come within so many seconds of the first are finished in one transaction.
GATHER = 0.02
# A task waits so many seconds for capacity for so many calls, before it makes fewer.
TOGETHER, CAPACITY_GATHERS = 32, 0.1

# Many tasks share this process. More transactions at once would wait for connections, until that wait times out.
transactions = threading.BoundedSemaphore(8)

log = structlog.get_logger(__name__)
T = TypeVar("T")


class CallPool:
    """Capacity for `most` calls at once in this process, and the threads that make them."""

    _every: ClassVar[WeakSet["CallPool"]] = WeakSet()

    def __init__(self, most: int) -> None:
        _allow_files(most)
        self._every.add(self)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="call")
        self._most = self._free = most
        self._freed = threading.Condition()
        # One thread waits for capacity, the others for this lock: a call that ends wakes one thread, not all.
        self._turn = threading.Lock()
        self._stopping = False

    def take(self, wanted: int, patience: float) -> int:
        """Take capacity for some of the `wanted` calls, within `patience` seconds. Returned: for how many.

        0 where there is none, or after `stop`. Where calls end one by one it waits a moment for capacity for several:
        claimed together they cost less.
        """
        until = time.monotonic() + patience
        if not self._turn.acquire(timeout=max(0.0, patience)):
            return 0
        try:
            with self._freed:
                several = min(wanted, self._most, TOGETHER)
                self._freed.wait_for(lambda: self._free >= several or self._stopping, min(patience, CAPACITY_GATHERS))
                if not self._free:
                    self._freed.wait_for(lambda: self._free or self._stopping, max(0.0, until - time.monotonic()))
                taken = 0 if self._stopping else min(wanted, self._free)
                self._free -= taken
                return taken
        finally:
            self._turn.release()

    def give_back(self, capacity: int) -> None:
        with self._freed:
            self._free += capacity
            self._freed.notify()

    def stop(self) -> None:
        """Hand out no more capacity; calls in flight go on to their end."""
        with self._freed:
            self._stopping = True
            self._freed.notify_all()

    def submit(self, run: Callable[[], object]) -> None:
        self._threads.submit(run)


def stop_all() -> None:
    """Hand out no more capacity in this process, which is about to end."""
    for calls in CallPool._every:  # noqa: SLF001  -- the class's own
        calls.stop()


@dataclass(frozen=True, slots=True)
class Completed(Generic[T]):
    """A call that has ended: what it was made for, its reply, and when it ended (monotonic seconds)."""

    item: T
    reply: Reply
    at: float


class InFlight(Generic[T]):
    """The calls of one task. The task takes capacity for them from `calls`; each call gives its own back as it ends."""

    def __init__(self, calls: CallPool) -> None:
        self._calls = calls
        self._completed: SimpleQueue[Completed[T]] = SimpleQueue()
        self.count = 0

    def start(self, item: T, make: Callable[[T], Reply]) -> None:
        """Make the call for `item` in a thread of the pool."""
        self.count += 1
        self._calls.submit(lambda: self._run(item, make))

    def _run(self, item: T, make: Callable[[T], Reply]) -> None:
        try:
            reply = make(item)
        except Exception as error:
            # A surprise in our own code. It may have come after sending, so the outcome of the call is unknown.
            log.exception("call_failed")
            reply = Reply(Outcome.UNKNOWN, message=type(error).__name__)
        self._calls.give_back(1)
        self._completed.put(Completed(item, reply, time.monotonic()))

    def completed(self, patience: float | None) -> list[Completed[T]]:
        """Calls that have ended, with those that end shortly after the first; none if none ends in `patience` seconds.

        With no call in flight it sleeps all the same, so that a caller who asks in a loop does not spin.
        """
        if not self.count:
            time.sleep(patience or 0)
            return []
        try:
            found = [self._completed.get(timeout=patience)]
        except Empty:
            return []
        if self.count > 1:
            time.sleep(GATHER)  # one sleep costs less than a wake-up for each of them
        with suppress(Empty):
            while True:
                found.append(self._completed.get_nowait())
        self.count -= len(found)
        return found


def finish_or_keep(
    completed: Sequence[Completed[T]], finish: Callable[[Sequence[Completed[T]]], list[Completed[T]]], keep_for: float
) -> list[Completed[T]]:
    """Write down the outcomes of calls with `finish`. Returned: those that it could not write, to be tried again.

    The call has been made, and a lost outcome would cost another call. So each outcome is kept for `keep_for` seconds,
    as long as the claim may last, although a person has locked the row or PostgreSQL restarts.
    """
    if not completed:
        return []
    try:
        rest = finish(completed)
    except Exception as error:
        if not db.is_transient(error):
            raise
        log.warning("finish_put_off", calls=len(completed), error=type(error).__name__)
        rest = list(completed)
    now = time.monotonic()
    kept = [one for one in rest if now - one.at < keep_for]
    if len(kept) < len(rest):
        log.warning("finish_given_up", calls=len(rest) - len(kept), seconds=keep_for)
    return kept


def _allow_files(calls: int) -> None:
    """Each call is an open file, and some systems allow a process only 256 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = calls + 512
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
