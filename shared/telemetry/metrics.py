"""The metrics that each process counts in its own registry: API processes in API, worker processes in WORKER.

An API process shows its own; shared/broker/worker_metrics.py brings the workers' to /metrics (docs/decisions/0007).
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from shared import task_names

if TYPE_CHECKING:
    from shared.domain.queued_edits import EditResult, QueuedEdit


_MS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LATE = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
# The most outcomes that a task may report. More are a bug, and must not each make a new series.
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
DOORBELLS = Counter(
    "redraft_doorbells", "Doorbells: listed (a worker was awake), sent, failed.", ("outcome",), registry=API
)
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
    "From a post's time, or its later release from a hold, to the claim of its first try.",
    buckets=_LATE,
    registry=WORKER,
)
ANSWERS = Counter(
    "redraft_service_answers",
    "Calls of publisher, renderer and receiver of webhooks, by what their answer meant (docs/services.md).",
    ("service", "meaning"),
    registry=WORKER,
)
CODE = Gauge("redraft_worker_code", "1: the code that a worker runs.", ("version", "code"), registry=WORKER)
POOL = Gauge("redraft_worker_connections", "Connections to PostgreSQL that are in use.", registry=WORKER)

RESULTS = {
    task_names.POSTS_PUBLISH: Counter(
        "redraft_publishes", "Publish messages by outcome.", ("outcome",), registry=WORKER
    ),
    task_names.POSTS_RENDER: Counter("redraft_renders", "Render messages by outcome.", ("outcome",), registry=WORKER),
    task_names.RESCHEDULES_RUN_CHUNK: Counter("redraft_bulk_posts", "Posts of jobs.", ("outcome",), registry=WORKER),
    task_names.WEBHOOKS_DELIVER: Counter("redraft_webhooks", "Deliveries by outcome.", ("outcome",), registry=WORKER),
    task_names.POSTS_DISPATCH_DUE: Counter(
        "redraft_dispatched", "Posts marked and sent.", ("outcome",), registry=WORKER
    ),
    task_names.OPS_RESCUE: Counter("redraft_rescued", "What rescue rang for again.", ("outcome",), registry=WORKER),
}
"""Tasks return small dicts of counts. These counters add them up, by their names."""


def request_answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. Method and route are of known sets: a method or route that a client invents is `other`."""
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


def doorbell_rung(outcome: str) -> None:
    """Count a doorbell by what became of it (shared/broker/doorbells.py)."""
    DOORBELLS.labels(outcome).inc()


def edits_finalized(
    results: "Sequence[EditResult]", read: "Iterable[QueuedEdit]", began: float, finished_at: float | None = None
) -> None:
    """Count the results of a batch, after its commit.

    `began`: monotonic seconds when the queue was read; `finished_at`: when the commit returned, now if not given.
    """
    if not results:
        return
    since = (time.monotonic() if finished_at is None else finished_at) - began
    accepted = {edit.id: (edit.read_at - edit.created_at).total_seconds() for edit in read}
    for end in results:
        _of_end(end.status.value).inc()
        if end.id in accepted:
            EDIT_TIME.observe(max(0.0, accepted[end.id] + since))
        if end.lock_wait_ms is not None:
            LOCK_WAIT.observe(end.lock_wait_ms / 1000)


def publishes_claimed(times: Iterable[datetime], now: datetime) -> None:
    """Count first tries, after the commit of their claims. `times`: when the posts were due."""
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
