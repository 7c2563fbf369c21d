"""One line a second of what a worker process has done, while it does something: `applied 3 (post_abc123 +2)`."""

import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from shared.domain.ids import is_id

EVENT = "work_done"
PERIOD = 1.0

# Counts that say how something was done, not what.
_HOW = ("doorbells", "chunk", "put_off")

log = structlog.get_logger(__name__)


def sentence(fields: Mapping[str, Any]) -> str:
    """The line for people: `applied 3, rejected 1 (post_abc123 +3)`."""
    counts = [f"{name.replace('_', ' ')} {value}" for name, value in fields.items() if type(value) is int]
    posts = fields.get("posts")
    return ", ".join(counts) + (f" ({posts})" if posts else "")


def first_id(args: tuple[Any, ...]) -> str | None:
    """The first post or job that a task's arguments name."""
    found: Any = args
    while isinstance(found, list | tuple) and found:
        found = found[0]
    return found if is_id(found) else None


class WorkLines:
    """Adds up what tasks return, and writes it down at most once in PERIOD seconds. One for each task of a process."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._first: str | None = None
        self._timer: threading.Timer | None = None

    def note(self, args: tuple[Any, ...], result: Any) -> None:
        """A task has ended with this result. Nothing is written for one that did nothing."""
        counts = result if isinstance(result, dict) else {}
        done = {name: count for name, count in counts.items() if type(count) is int and count and name not in _HOW}
        if not done:
            return
        with self._lock:
            self._counts.update(done)
            self._first = self._first or first_id(args)
            if self._timer is None:
                # A thread of its own: the line must come although no further task does.
                self._timer = threading.Timer(PERIOD, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what was noted since the last line."""
        with self._lock:
            counts, first = dict(self._counts), self._first
            self._counts.clear()
            self._first = self._timer = None
        more = sum(counts.values()) - 1
        posts = {"posts": f"{first} +{more}" if more else first} if first else {}
        log.info(EVENT, task=self._task, **counts, **posts)


def noted(task: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A task's function, whose results are written down."""
    lines = WorkLines(task)

    @functools.wraps(run)
    def noting(*args: Any) -> Any:
        result = run(*args)
        lines.note(args, result)
        return result

    return noting
