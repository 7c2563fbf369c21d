"""The Celery app and all of its configuration, each line with its reason (SPEC 7)."""

import functools
import random
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_process_init

from shared import db, queue
from shared.settings import settings
from shared.store import StaleWriteError

log = structlog.get_logger(__name__)

_config = settings()

app = Celery("redraft")
app.conf.update(queue.broker_options(_config))
app.conf.update(
    include=["worker.tasks"],
    timezone="UTC",
    enable_utc=True,
    # A doorbell is acknowledged when its work is committed, and comes again if its worker dies.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # What fails for a reason of its own is acknowledged: rescue finds what it left undone.
    task_acks_on_failure_or_timeout=True,
    # One message in hand for each that is worked on: a flood is shared, and little is lost with a worker.
    worker_prefetch_multiplier=1,
    # A task that outlives its connection goes on; its twin is safe to run beside it (FAULTS 8).
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Below the grace at SIGTERM, so that a warm shutdown always ends by itself.
    task_time_limit=_config.grace - 5,
    # How long a dead pool child may go unnoticed; Celery's 10 s would be a stall for every edit it held.
    worker_lost_wait=1.0,
    # Operators watch Flower: it shows only what it is told.
    worker_send_task_events=True,
    task_track_started=True,
    event_queue_ttl=60,
    # Nothing waits for a result over Celery: it would block for 19 s when Redis is down.
    result_backend=None,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    beat_schedule={
        # A beat's message that nobody took within its period is void: an hour without workers fills nothing.
        "dispatch what is due": {
            "task": queue.POSTS_DISPATCH_DUE,
            "schedule": _config.dispatch_period,
            "options": {"expires": _config.dispatch_period, "argsrepr": "()", "kwargsrepr": ""},
        },
        "rescue what was forgotten": {
            "task": queue.OPS_RESCUE,
            "schedule": _config.rescue_period,
            "options": {"expires": _config.rescue_period, "argsrepr": "()", "kwargsrepr": ""},
        },
    },
    beat_max_loop_interval=1,
)


@worker_process_init.connect  # type: ignore[no-untyped-call]
def _warm(**_: Any) -> None:
    """Connect before the first doorbell, so that the first edit is as fast as the rest."""
    try:
        with db.engine().connect(), db.aside():
            pass
    except Exception as error:  # noqa: BLE001  -- a worker may start before its database; tasks will say so
        log.warning("database_not_ready", error=type(error).__name__)


def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A task that is a wake-up: when PostgreSQL is away, it rings itself again in a second and ends."""

    def decorate(run: Callable[..., Any]) -> Any:
        @functools.wraps(run)
        def guarded(*args: Any) -> Any:
            try:
                return run(*args)
            except Exception as error:
                # The edge: what passes by itself is tried again, a surprise is shown to the operator as a failure.
                if not (db.passing(error) or isinstance(error, StaleWriteError)):
                    raise
                log.warning("task_put_off", task=name, error=type(error).__name__)
                if name not in (queue.OPS_RESCUE, queue.POSTS_DISPATCH_DUE):
                    queue.send(name, args, shown="again", countdown=1 + random.random())  # noqa: S311  -- spread only
                return {"put_off": type(error).__name__}

        return app.task(name=name, typing=False, **options)(guarded)

    return decorate
