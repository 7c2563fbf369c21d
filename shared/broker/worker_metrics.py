"""Brings the metrics of worker processes to /metrics (docs/decisions/0007).

Every worker process, pool children too, writes what it has counted into Redis every two seconds, under its worker's
name and its place in the pool; any API process serves them.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import signals
from prometheus_client.metrics_core import Metric

from shared import task_names
from shared.broker import metric_snapshots
from shared.broker.metric_snapshots import Merged
from shared.settings import settings
from shared.store.db import connections_in_use
from shared.telemetry import tracing
from shared.telemetry.metrics import POOL, WORKER


class _Worker:
    """This process, if it is a worker's: its name, its place in the pool, and the thread that writes its metrics."""

    def __init__(self) -> None:
        self.name = ""
        self.run = uuid4().hex[:12]
        """This run of the worker. The children of its pool are forked, and have the same."""
        self.place = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, place: int) -> None:
        """Start writing. In pool children, or in a worker of threads; never in a process that still forks."""
        self.place = place
        self._stopped.clear()
        self._thread = threading.Thread(target=self._write_on, name="figures", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write one last time and stop."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join(timeout=3)
            self._thread = None

    def _write_on(self) -> None:
        while True:
            last = self._stopped.is_set()
            self.write()
            if last:
                return
            self._stopped.wait(metric_snapshots.PERIOD)

    def write(self) -> None:
        """Lay this process's metrics down where an API process finds them, and say to a health check that it lives."""
        POOL.set(connections_in_use())
        metric_snapshots.write(f"{self.name}/{self.place}", WORKER.collect())
        if path := settings().alive_file:
            # Where it cannot be written, its age says what there is to say.
            with suppress(OSError):
                Path(path).touch()


_worker = _Worker()


def worker_name() -> str:
    """`edits@host` in a worker's processes, else an empty string."""
    return _worker.name


def process_name() -> str:
    """`edits@host/3f2a…/4711`: this process's worker, the run of the worker, and its pid. No process had it before."""
    return f"{_worker.name}/{_worker.run}/{os.getpid()}"


def is_dead(process: str) -> bool | None:
    """Whether the process of that name is gone. None: it is another worker's, and cannot be known here.

    An earlier run of this worker is taken to be gone. If it still ends, its work is only done once more.
    """
    worker, run, pid = f"//{process}".rsplit("/", 2)
    if worker != f"//{_worker.name}" or not pid.isascii() or not pid.isdigit():
        return None
    if run != _worker.run:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return None
    return False


def watch_worker() -> None:
    """Let Celery's signals start and stop the writer and tracing. Called once, by worker/runtime/app.py."""
    signals.celeryd_init.connect(_named, weak=False)
    signals.worker_process_init.connect(_child_began, weak=False)
    signals.worker_process_shutdown.connect(_process_stopped, weak=False)
    signals.worker_ready.connect(_worker_began, weak=False)
    signals.worker_shutdown.connect(_process_stopped, weak=False)


def _named(sender: Any = None, **_: Any) -> None:
    # A new run, also in a process that was forked from one with this module imported.
    _worker.name, _worker.run = str(sender), uuid4().hex[:12]


def _child_began(**_: Any) -> None:
    from billiard.process import current_process  # noqa: PLC0415  -- only pool children need it

    # The child that replaces a dead one takes over its place: its counters begin anew, as after any restart.
    _worker.begin(int(getattr(current_process(), "index", 0) or 0))
    tracing.start(_worker.name)


def _worker_began(sender: Any = None, **_: Any) -> None:
    # A parent of pool children counts nothing, and a thread in it would be torn by the next fork.
    if not getattr(getattr(sender, "pool", None), "uses_semaphore", False):
        _worker.begin(0)
        tracing.start(_worker.name)


def _process_stopped(**_: Any) -> None:
    _worker.end()
    tracing.stop()


def of_workers() -> list[Metric]:
    """The metrics of all worker processes, each sample with its `worker` and `place`; raises redis.RedisError.

    `redraft_worker_processes` says for each queue how many there are, 0 too: the first thing to look at.
    """
    merged = Merged(WORKER.collect())
    processes = Metric("redraft_worker_processes", "Worker processes heard of lately, by queue.", "gauge")
    snapshots = metric_snapshots.read()
    for name, written in snapshots:
        worker, _, place = name.rpartition("/")
        if _served(name) in task_names.QUEUES:
            merged.add(written, worker=worker, place=place)
    for served, number in processes_by_queue(name for name, _ in snapshots).items():
        processes.add_sample(processes.name, {"queue": served}, number)
    return [processes, *merged]


def processes_by_queue(names: Iterable[str]) -> dict[str, int]:
    """How many worker processes serve each queue, 0 too. `names`: those of their snapshots."""
    count = Counter(_served(name) for name in names)
    return {queue: count[queue] for queue in task_names.QUEUES}


def _served(name: str) -> str:
    """The queue that a worker process serves, by its name: `edits@host/0`."""
    return name.partition("@")[0]
