"""What Redis says in a few trips, for operators: whether it takes writes, and of which workers it has heard."""

from collections.abc import Callable
from typing import TypeVar

import redis

from shared.broker import metric_snapshots, queue, redis_connection, redis_state, worker_metrics
from shared.domain.waits import Broker
from shared.settings import settings

T = TypeVar("T")


def read() -> Broker:
    """Ask Redis, and try one write. Never raises for a Redis that is away or full. Takes a few milliseconds, and at
    most two of its time-outs.
    """
    if not settings().redis_url:
        return Broker()
    try:
        refuses = redis_state.refusal(redis_connection.client())
        waiting, names = _answer(queue.depths), _answer(metric_snapshots.names)
    except redis.AuthenticationError:
        return Broker(away="it refuses the password")
    except (redis.TimeoutError, TimeoutError):
        return Broker(away="no answer in time")
    except (redis.RedisError, OSError):
        return Broker(away="no connection")
    workers = None if names is None else worker_metrics.processes_by_queue(names)
    return Broker(refuses=refuses, workers=workers, waiting=waiting)


def _answer(ask: Callable[[], T]) -> T | None:
    """What it answers; None where another client has put strange content under our names."""
    try:
        return ask()
    except redis.ResponseError:
        return None
