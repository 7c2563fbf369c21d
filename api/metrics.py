"""GET /metrics: metrics of this process and of the workers, and gauges from rows and Redis. Counts requests too.

Every client that reaches the API's port may read it, unless REDRAFT_METRICS_TOKEN is set. The default bind is loopback,
and a proxy in front of the API must not pass /metrics on (docs/deployment.md).
"""

import asyncio
import hmac
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import siblings
from api.context import Context, context_of
from api.http import problems
from api.http.refusals import Unauthenticated
from api.http.sources import Source
from shared import task_names
from shared.broker import redis_connection, redis_state, worker_metrics
from shared.domain.errors import printable
from shared.settings import settings
from shared.store import db, gauges
from shared.store import posts as posts_store
from shared.store.db import transaction
from shared.telemetry import logs, metrics, tracing
from shared.telemetry.code_version import code_version

if TYPE_CHECKING:
    from sqlalchemy import Engine

FRESH = 3.0
"""Seconds for which answers of PostgreSQL and Redis are shown again: many scrapes cost as much as one."""

PATIENCE = 4.0
STATEMENT_WITHIN = 1.5
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

log = structlog.get_logger(__name__)
router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def show(request: Request) -> Response:
    """All metrics, in Prometheus's text format."""
    token = settings().metrics_token
    given = request.headers.get("authorization", "").partition(" ")[2].strip()
    if token and not hmac.compare_digest(given.encode(), token.encode()):
        raise Unauthenticated
    rows, redis_says = await asyncio.gather(_rows.read(), _redis.read())
    siblings_say = redis_says.pop("siblings", None)
    own = of_process(context_of(request))
    if settings().api_place:
        own = list(siblings.merged(own, siblings_say))
    registry = CollectorRegistry()
    registry.register(_Families([*own, *_of_servers(rows | redis_says)]))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def of_process(context: Context) -> list[Metric]:
    """What this process has counted, and its gauges."""
    submission = context.submission
    waiting = len(submission.waiting) + len(context.job_waiting)
    code = GaugeMetricFamily("redraft_api_code", "1: the code that this API runs.", labels=["version", "code"])
    code.add_metric(code_version(), 1)
    return [
        *metrics.API.collect(),
        code,
        _gauge("redraft_waiting_requests", "Requests that wait for the end of an edit or a bulk job.", waiting),
        _gauge("redraft_unrecorded_requests", "Requests whose edit is not inserted yet.", len(submission)),
        _gauge(
            "redraft_event_loop_lag_seconds",
            "For how long the event loop was held up, the longest of the last half minute to minute.",
            context.lag.seconds(),
        ),
        CounterMetricFamily(
            "redraft_log_lines_left_out", "Lines that were too many of their kind to be written.", logs.left_out()
        ),
        _gauge("redraft_api_connections", "Connections to PostgreSQL in use.", db.connections_in_use()),
        _gauge("redraft_api_connections_most", "Connections to PostgreSQL at most.", db.engine().pool.size()),  # type: ignore[attr-defined]
    ]


@lru_cache(maxsize=1)
def _engine() -> "Engine":
    # Apart from the requests' engine: a scrape must neither wait for their connections nor take one from them.
    config = settings()
    return db.make_engine(config.database_url, config, pool_size=1, name="redraft-metrics")


def _ask_rows(group: str) -> list[tuple[str, str, float]]:
    with transaction(_engine()) as tx:
        return gauges.read(tx, group, STATEMENT_WITHIN, settings().horizon)


def _ask_queues() -> list[Metric]:
    """How many messages each queue has, and how many the workers have not acknowledged."""
    messages = GaugeMetricFamily("redraft_queue_messages", "Messages on a queue.", labels=["queue"])
    with redis_connection.client().pipeline(transaction=False) as together:
        for name in task_names.QUEUES:
            together.llen(name)
        together.hlen("unacked")
        *depths, unacknowledged = together.execute()
    for name, depth in zip(task_names.QUEUES, depths, strict=True):
        messages.add_metric([name], depth)
    documentation = "Messages that workers have not acknowledged."
    return [messages, _gauge("redraft_queue_unacknowledged", documentation, unacknowledged)]


def _ask_redis() -> list[Metric]:
    """Whether Redis takes writes, tried with a key of our own, and how full it is."""
    state = redis_state.read()
    return [
        _gauge("redraft_redis_takes_writes", "1: Redis took a trial write; 0: it refused it.", not state.refuses),
        _gauge("redraft_redis_saving_fails", "1: Redis could not write to its disk.", state.saving_fails),
        _gauge(
            "redraft_redis_memory_share",
            "Redis's memory in use, of what it may use; 0 where it has no limit.",
            state.used / state.most if state.most else 0.0,
        ),
    ]


def _ask_clock() -> list[Metric]:
    """How far this machine's clock is off. The answer is half a trip old, which is some milliseconds."""
    with transaction(_engine()) as tx:
        posts_store.clock(tx)  # opens the connection
        asked = time.time()
        theirs = posts_store.clock(tx).timestamp()
        middle = (asked + time.time()) / 2
    documentation = "This API's clock minus the database's, which decides about times."
    return [_gauge("redraft_api_clock_skew_seconds", documentation, middle - theirs)]


_rows = Source(
    {group: partial(_ask_rows, group) for group in gauges.STATEMENTS} | {"clock": _ask_clock}, FRESH, PATIENCE
)
_redis = Source(
    {
        "workers": worker_metrics.of_workers,
        "redis": _ask_queues,
        "redis_state": _ask_redis,
        "siblings": siblings.snapshots,
    },
    FRESH,
    PATIENCE,
)


def _of_servers(answers: dict[str, list[Any] | None]) -> Iterator[Metric]:
    """The families from PostgreSQL's and Redis's answers. A family without a value is left out: 0 would be wrong."""
    up = GaugeMetricFamily("redraft_scrape_up", "Whether a source of metrics answered.", labels=["source"])
    families = {
        gauge.name: GaugeMetricFamily(gauge.name, gauge.help, labels=[gauge.label] if gauge.label else [])
        for gauge in gauges.GAUGES.values()
    }
    for source, said in answers.items():
        up.add_metric([source], said is not None)
        if source in gauges.STATEMENTS:
            for name, label, value in said or ():
                families[name].add_metric([label] if label else [], value)
        else:
            yield from said or ()
    yield up
    yield from (family for family in families.values() if family.samples)


class Observed:
    """Counts, logs and traces each request once, with its route and the ids of its post and edit."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not tracing.on():
            await self._serve(scope, receive, send, None)
        else:
            with tracing.request(scope["method"], scope["headers"]) as span:
                await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: Any) -> None:
        began = time.perf_counter()
        status, edit_id = 0, None
        # A pipelined request starts in the context of the request before it.
        problems.refused.set("")

        async def observed(message: Message) -> None:
            nonlocal status, edit_id
            if message["type"] == "http.response.start":
                status = message["status"]
                edit_id = next((value for name, value in message["headers"] if name == b"edit-id"), None)
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            # 499 as in nginx: the client went away before the answer.
            status = status or 499
            seconds = time.perf_counter() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path_format", "other")
            # A path may hold 60 KB of post id; a row's id has 255 characters at most (api/context.py).
            post_id = scope.get("path_params", {}).get("post_id")
            ids = {
                "post_id": printable(post_id, 255) if post_id else None,
                "edit_id": edit_id.decode() if edit_id else None,
            }
            metrics.request_answered(method, route, status, seconds)
            logs.answered(status, seconds, method=method, route=route, code=problems.code_of(status), **ids)
            if span is not None:
                tracing.answered(span, method=method, route=route, status=status, **ids)
