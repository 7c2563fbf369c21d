"""The only send. A message is a wake-up: it holds ids only, and the worker reads the rows (docs/architecture.md)."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import redis
import redis.asyncio
import structlog
from celery import Celery

from shared.broker import celery_message, redis_connection
from shared.settings import Settings, settings
from shared.task_names import (
    EDITS_APPLY,
    POSTS_PUBLISH,
    POSTS_RENDER,
    QUEUE_OF,
    QUEUES,
    RESCHEDULES_RUN_CHUNK,
    WEBHOOKS_DELIVER,
)
from shared.telemetry import tracing

DOORBELL_POSTS = 500
PUBLISHES_A_MESSAGE = 50
WAITING_BEATS = 10
"""While so many messages wait on the queue of dispatch and rescue, beat sends no further dispatch
(worker/runtime/scheduler.py).
"""

log = structlog.get_logger(__name__)


def broker_options(config: Settings) -> dict[str, Any]:
    """Celery's settings for Redis, the same for senders and for workers."""
    return {
        "broker_url": redis_connection.with_tls_checked(config.redis_url),
        "broker_connection_timeout": config.redis_timeout,
        "broker_transport_options": {
            "visibility_timeout": config.visibility_timeout,
            # kombu's default is None: a frozen Redis would hang a send for ever.
            "socket_timeout": config.redis_timeout,
            "socket_connect_timeout": config.redis_timeout,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        # Rescue rings a lost doorbell again. A retry here would only block the sender.
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        # A second message for each send would double the cost of a doorbell. Workers report what they received.
        "task_send_sent_event": False,
        "task_default_queue": "ops",
        "task_create_missing_queues": True,
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF.items()},
    }


@lru_cache(maxsize=1)
def sender() -> Celery:
    """The Celery app of processes that only send. Workers have their own, set up alike (worker/runtime/app.py)."""
    app = Celery("redraft", set_as_current=False)
    app.conf.update(broker_options(settings()))
    return app


def readable(ids: Sequence[str]) -> str:
    """What an operator reads in Flower: `post_abc123 +3`."""
    if not ids:
        return "nothing"
    return ids[0] if len(ids) == 1 else f"{ids[0]} +{len(ids) - 1}"


def send(
    task: str,
    args: Sequence[object],
    *,
    shown: str,
    countdown: float | None = None,
    eta: datetime | None = None,
) -> bool:
    """Put one message on its queue; the only place that does. False when the broker would not take it.

    Never raises for a broker that is gone, frozen or full: the row is the truth, and rescue rings again.
    """
    if countdown is not None:
        eta = datetime.now(UTC) + timedelta(seconds=countdown)
    ready = _message(task, args, shown, eta)
    try:
        redis_connection.client().lpush(QUEUE_OF[task], ready)
    except redis.RedisError as error:
        return not_sent(task, shown, error)
    return True


async def send_on_loop(
    broker: redis.asyncio.Redis, task: str, args: Sequence[object], shown: str, traces: Sequence[str] = ()
) -> None:
    """The same on an event loop, with a connection of `redis_connection.client_on_loop`. Raises what Redis raises."""
    await broker.lpush(QUEUE_OF[task], _message(task, args, shown, traces=traces))


def _message(
    task: str, args: Sequence[object], shown: str, eta: datetime | None = None, traces: Sequence[str] = ()
) -> bytes:
    headers = {tracing.PARENTS: list(traces)} if traces else tracing.headers(args)
    return celery_message.message(sender(), task, args, shown=f"({shown})", eta=eta, headers=headers)


def not_sent(task: str, shown: str, error: Exception) -> bool:
    """Log a message that the broker would not take. Returned: False."""
    log.warning("ring_failed", task=task, shown=shown, error=type(error).__name__)
    return False


def ring_contended(token: str, countdown: float) -> bool:
    """A doorbell for posts that were locked elsewhere. It names no post: the worker reads them from Redis
    (shared/broker/contended_posts.py). `token` identifies the message.
    """
    return send(EDITS_APPLY, [[], token], shown="locked posts", countdown=countdown)


def enqueue_publish(due: Sequence[tuple[str, int, datetime | None]], countdown: float | None = None) -> bool:
    """Ring for publishes: (post, schedule revision, when; None for at once). Those of one moment share messages."""
    groups: dict[datetime | None, list[list[object]]] = {}
    for post_id, schedule_revision, at in due:
        groups.setdefault(at, []).append([post_id, schedule_revision])
    rung = True
    for at, pairs in groups.items():
        for start in range(0, len(pairs), PUBLISHES_A_MESSAGE):
            some = pairs[start : start + PUBLISHES_A_MESSAGE]
            shown = readable([str(pair[0]) for pair in some])
            rung &= send(POSTS_PUBLISH, [some], shown=shown, eta=at, countdown=countdown)
    return rung


def enqueue_renders(due: Sequence[tuple[str, int]], countdown: float | None = None) -> bool:
    """Ring for renders: (post, content revision), a message each, since each holds a thread for long."""
    rung = True
    for post_id, content_revision in due:
        rung &= send(POSTS_RENDER, [post_id, content_revision], shown=post_id, countdown=countdown)
    return rung


def ring_webhooks(post_ids: Sequence[str]) -> bool:
    """A doorbell for posts that have undelivered webhook events."""
    return _ring(WEBHOOKS_DELIVER, post_ids)


def _ring(task: str, post_ids: Sequence[str], *more: object) -> bool:
    """A message for each 500 posts."""
    rung = True
    for start in range(0, len(post_ids), DOORBELL_POSTS):
        some = list(post_ids[start : start + DOORBELL_POSTS])
        rung &= send(task, [some, *more], shown=readable(some))
    return rung


def ring_reschedule(job_id: str, shown: str = "", countdown: float | None = None) -> bool:
    """A doorbell for the next step of a bulk job. `shown` names the step, for operators."""
    return send(RESCHEDULES_RUN_CHUNK, [job_id], shown=shown or job_id, countdown=countdown or None)


def free_capacity(queue: str) -> int:
    """How many more messages dispatch and rescue may put on a queue: they send only while it is below `queue_full`."""
    with suppress(redis.RedisError):
        return max(0, settings().queue_full - int(redis_connection.client().llen(queue)))
    return 0


def depths() -> dict[str, int]:
    """How many messages each queue holds. Raises redis.RedisError."""
    pipe = redis_connection.client().pipeline(transaction=False)
    for name in QUEUES:
        pipe.llen(name)
    return dict(zip(QUEUES, map(int, pipe.execute()), strict=True))
