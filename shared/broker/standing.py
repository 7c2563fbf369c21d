"""What Redis says in a few trips, for operators: whether it takes writes, and of which workers it has heard."""

import redis

from shared.broker import metric_snapshots, queue, redis_connection, redis_state, worker_metrics
from shared.domain.waits import Broker
from shared.settings import settings


def read() -> Broker:
    """Ask Redis, and try one write. Never raises for a Redis that is away or full. Takes a few milliseconds, and at
    most two of its time-outs.
    """
    if not settings().redis_url:
        return Broker()
    try:
        refuses = redis_state.refusal(redis_connection.client())
        waiting = queue.depths()
        workers = worker_metrics.processes_by_queue(metric_snapshots.names())
    except (redis.RedisError, OSError) as error:
        late = isinstance(error, (redis.TimeoutError, TimeoutError))
        return Broker(away="no answer in time" if late else "no connection")
    return Broker(refuses=refuses, workers=workers, waiting=waiting)
