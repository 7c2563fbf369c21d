"""The figures of each process, and how those of workers reach /metrics (docs/decisions/0007).

An API process counts in its own registry and shows it. Every worker process, pool children too, writes what it has
counted into Redis every two seconds, under its worker's name and its place in the pool; any API shows what lies there.
"""

import functools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import redis
from celery import signals
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import Metric
from pydantic_core import from_json, to_json

from shared import db, outcomes, queue, tracing

if TYPE_CHECKING:
    from shared.store.edits import End, QueuedEdit

PERIOD = 2.0
KEPT_FOR = 30
"""Seconds for which a worker's figures are shown after its last word."""

NAMES = "redraft:figures"
_MS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LATE = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
# What tasks may call an outcome; a word beyond these is a bug, and must not make a series of its own each time.
_OUTCOMES_AT_MOST = 40

disable_created_metrics()  # type: ignore[no-untyped-call]
API = CollectorRegistry()
WORKER = CollectorRegistry()
ProcessCollector(registry=API)

REQUESTS = Counter("redraft_http_requests", "Requests answered.", ("method", "route", "status"), registry=API)
REQUEST_TIME = Histogram(
    "redraft_http_request_seconds", "Time to the end of the answer.", ("method", "route"), buckets=_MS, registry=API
)
ACCEPTED = Counter("redraft_edits_accepted", "Edits recorded, replays not counted.", registry=API)
DOORBELLS = Counter("redraft_doorbells", "Doorbells by what the broker said: sent, failed.", ("outcome",), registry=API)
UNANSWERED = Counter("redraft_doorbells_unanswered", "Doorbells that no worker answered in time.", registry=API)

EDITS = Counter("redraft_edits", "Edits ended: applied, rejected, failed.", ("outcome",), registry=WORKER)
EDIT_TIME = Histogram(
    "redraft_edit_seconds", "From an edit's acceptance to the commit of its end.", buckets=_WAITS, registry=WORKER
)
LOCK_WAIT = Histogram("redraft_lock_wait_seconds", "An edit's wait for its post's lock.", buckets=_MS, registry=WORKER)
TASKS = Counter("redraft_tasks", "Tasks ended: done, put_off, failed.", ("task", "outcome"), registry=WORKER)
TASK_TIME = Histogram("redraft_task_seconds", "Time of a task.", ("task",), buckets=_WAITS, registry=WORKER)
LATENESS = Histogram(
    "redraft_publish_lateness_seconds",
    "From a post's time to the claim of its first try.",
    buckets=_LATE,
    registry=WORKER,
)
ANSWERS = Counter(
    "redraft_service_answers",
    "Calls of publisher, renderer and receiver of webhooks, by what their answer meant (docs/services.md).",
    ("service", "meaning"),
    registry=WORKER,
)
POOL = Gauge("redraft_worker_connections", "Connections to PostgreSQL that are in use.", registry=WORKER)

RESULTS = {
    queue.POSTS_PUBLISH: Counter("redraft_publishes", "Publish messages by outcome.", ("outcome",), registry=WORKER),
    queue.POSTS_RENDER: Counter("redraft_renders", "Render messages by outcome.", ("outcome",), registry=WORKER),
    queue.RESCHEDULES_RUN_CHUNK: Counter("redraft_bulk_posts", "Posts of jobs.", ("outcome",), registry=WORKER),
    queue.WEBHOOKS_DELIVER: Counter("redraft_webhooks", "Deliveries by outcome.", ("outcome",), registry=WORKER),
    queue.POSTS_DISPATCH_DUE: Counter("redraft_dispatched", "Posts marked and sent.", ("outcome",), registry=WORKER),
    queue.OPS_RESCUE: Counter("redraft_rescued", "What rescue rang for again.", ("outcome",), registry=WORKER),
}
"""Tasks return small dicts of counts (SPEC 7): these count on from them, by their names."""


def request_answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. Method and route are of known sets: whatever a client makes up is `other`."""
    count, times = _of_request(method, route, status)
    count.inc()
    times.observe(seconds)


@functools.cache
def _of_request(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    # Looked up once: finding a series by its labels costs as much as counting in it.
    return REQUESTS.labels(method, route, status), REQUEST_TIME.labels(method, route)


_of_end = functools.cache(EDITS.labels)
_of_task = functools.cache(TASKS.labels)


def edits_accepted(count: int) -> None:
    """Count edits whose rows are committed."""
    ACCEPTED.inc(count)


def doorbell_rung(sent: bool) -> None:  # noqa: FBT001  -- what a send says
    """Count a doorbell; `sent` is False where the broker would not take it."""
    DOORBELLS.labels("sent" if sent else "failed").inc()


def edits_ended(ends: "Sequence[End]", read: "Iterable[QueuedEdit]", began: float, ended: float | None = None) -> None:
    """Count the ends of a batch below its commit. `began`, `ended`: monotonic, around what followed the reading."""
    if not ends:
        return
    since = (time.monotonic() if ended is None else ended) - began
    accepted = {edit.id: (edit.read_at - edit.created_at).total_seconds() for edit in read}
    for end in ends:
        _of_end(end.status.value).inc()
        if end.id in accepted:
            EDIT_TIME.observe(max(0.0, accepted[end.id] + since))
        if end.lock_wait_ms is not None:
            LOCK_WAIT.observe(end.lock_wait_ms / 1000)


def publishes_claimed(times: Iterable[datetime], now: datetime) -> None:
    """Count first tries, below the commit of their claims: the times that the posts were meant for, and the clock."""
    for at in times:
        LATENESS.observe(max(0.0, (now - at).total_seconds()))


def service_answered(service: str, meaning: str) -> None:
    """Count one call of an outside service, by what its answer meant."""
    ANSWERS.labels(service, str(meaning)).inc()


def counted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A task's function that counts its runs, their time, and the counts in the small dict that it returns."""
    results = RESULTS.get(name)
    known: set[str] = set()

    @functools.wraps(run)
    def counting(*args: Any) -> Any:
        began = time.monotonic()
        try:
            result = run(*args)
        except BaseException:
            _of_task(name, "failed").inc()
            raise
        finally:
            TASK_TIME.labels(name).observe(time.monotonic() - began)
        counts: dict[str, Any] = result if isinstance(result, dict) else {}
        _of_task(name, "put_off" if "put_off" in counts else "done").inc()
        if results is not None:
            for outcome, count in counts.items():
                if isinstance(count, int) and (outcome in known or len(known) < _OUTCOMES_AT_MOST):
                    known.add(outcome)
                    results.labels(outcome).inc(count)
        return result

    return counting


def connections_in_use() -> int:
    """How many connections of this process's pool are in use; 0 before the first."""
    if not db.engine.made():
        return 0
    pool: Any = db.engine().pool
    return int(pool.checkedout())


class _Worker:
    """This process, if it is a worker's: its name, its place in the pool, and the thread that writes its figures."""

    def __init__(self) -> None:
        self.name = ""
        self.place = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, place: int) -> None:
        """Start writing. In pool children, or in a worker of threads; never in a process that still forks."""
        self.place = place
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="figures", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write once more, and no more."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join(timeout=3)
            self._thread = None

    def _run(self) -> None:
        while True:
            last = self._stopped.is_set()
            with suppress(redis.RedisError):
                self.write()
            if last:
                return
            self._stopped.wait(PERIOD)

    def write(self) -> None:
        """Lay this process's figures down where an API finds them, for KEPT_FOR seconds."""
        POOL.set(connections_in_use())
        name = f"{self.name}/{self.place}"
        figures = [
            [family.name, [[sample.name, sample.labels, sample.value] for sample in family.samples]]
            for family in WORKER.collect()
        ]
        with outcomes.client().pipeline(transaction=False) as together:
            together.set(f"{NAMES}:{name}", to_json(figures), ex=KEPT_FOR)
            together.sadd(NAMES, name)
            together.execute()


_worker = _Worker()


def worker_name() -> str:
    """`edits@host` in a worker's processes, else an empty string."""
    return _worker.name


def watch_worker() -> None:
    """Let Celery's signals start and end the writing of figures, and tracing; called once, by worker/app.py."""
    signals.celeryd_init.connect(_named, weak=False)
    signals.worker_process_init.connect(_child_began, weak=False)
    signals.worker_process_shutdown.connect(_ended, weak=False)
    signals.worker_ready.connect(_worker_began, weak=False)
    signals.worker_shutdown.connect(_ended, weak=False)


def _named(sender: Any = None, **_: Any) -> None:
    _worker.name = str(sender)


def _child_began(**_: Any) -> None:
    from billiard.process import current_process  # noqa: PLC0415  -- only pool children need it

    # The place is taken over by whoever replaces a dead child: its counters begin anew, as after any restart.
    _worker.begin(int(getattr(current_process(), "index", 0) or 0))
    tracing.start(_worker.name)


def _worker_began(sender: Any = None, **_: Any) -> None:
    # A parent of pool children counts nothing, and a thread in it would be torn by the next fork.
    if not getattr(getattr(sender, "pool", None), "uses_semaphore", False):
        _worker.begin(0)
        tracing.start(_worker.name)


def _ended(**_: Any) -> None:
    _worker.end()
    tracing.stop()


def heard_from(worker_queue: str, host: str = "") -> bool:
    """Whether this host's worker for a queue has written figures lately: a container's health check."""
    name = f"{worker_queue}@{host or socket.gethostname()}/"
    return any(one.startswith(name) for one, _ in _snapshots())


def _snapshots() -> list[tuple[str, Any]]:
    """What worker processes have written lately, by name; names of the gone are forgotten on the way."""
    client = outcomes.client()
    known: Any = client.smembers(NAMES)
    names = sorted(name.decode() for name in known)
    if not names:
        return []
    values: Any = client.mget([f"{NAMES}:{name}" for name in names])
    gone = [name for name, value in zip(names, values, strict=True) if value is None]
    if gone:
        client.srem(NAMES, *gone)
    return [(name, from_json(value)) for name, value in zip(names, values, strict=True) if value is not None]


def of_workers() -> list[Metric]:
    """The figures of all worker processes, each sample with its `worker` and `place`; raises redis.RedisError.

    `redraft_worker_processes` says for each queue how many there are, 0 too: the first thing to look at.
    """
    families = {family.name: Metric(family.name, family.documentation, family.type) for family in WORKER.collect()}
    processes = Metric("redraft_worker_processes", "Worker processes heard of lately, by queue.", "gauge")
    count = dict.fromkeys(queue.QUEUES, 0)
    for name, figures in _snapshots():
        worker, _, place = name.rpartition("/")
        served = worker.partition("@")[0]
        if served in count:
            count[served] += 1
        for family, samples in figures:
            for sample, labels, value in samples if family in families else ():
                families[family].add_sample(sample, {**labels, "worker": worker, "place": place}, value)
    for served, number in count.items():
        processes.add_sample(processes.name, {"queue": served}, number)
    return [processes, *families.values()]
