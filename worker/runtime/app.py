"""The Celery app and all of its configuration, each line with its reason."""

import functools
import random
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, worker_init, worker_process_init, worker_ready, worker_shutting_down

from shared import gc_tuning, task_names
from shared.broker import queue, worker_metrics
from shared.settings import settings
from shared.store import StaleWriteError, db
from shared.telemetry import logs, metrics, tracing, work_lines
from worker.outbound import call_pool, services
from worker.runtime import transport

log = structlog.get_logger(__name__)

_config = settings()

# What is no message must stop no worker (docs/faults.md, row 10).
transport.serve_redis()
app = Celery("redraft", events="worker.runtime.events:BatchingEvents")
app.conf.update(queue.broker_options(_config))
app.conf.update(
    include=["worker.tasks"],
    timezone="UTC",
    enable_utc=True,
    # A doorbell is acknowledged when its work is committed. It is handed out again if its worker dies.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A task that raises is acknowledged: rescue finds what it left undone.
    task_acks_on_failure_or_timeout=True,
    # A message that cannot be read must not stop one worker after the other (docs/faults.md, row 10).
    worker_consumer="worker.runtime.consumer:Consumer",
    # A worker takes one message more than it works on: a flood is shared, and a dead worker keeps few messages back.
    worker_prefetch_multiplier=1,
    # After a lost connection Celery 5.6 forgets which children are busy (asynpool's flush), and may hand a busy child
    # the next message, which waits there. A prefetch count reduced to that message would stall the whole worker.
    worker_enable_prefetch_count_reduction=False,
    # A task that outlives its connection goes on. A second run of it beside it is safe (docs/faults.md, row 8).
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Below the grace at SIGTERM, so that every warm shutdown ends in time.
    task_time_limit=_config.grace - 5,
    # Seconds until a dead pool child is noticed. Celery's 10 s would delay every edit that the child worked on.
    worker_lost_wait=1.0,
    # Operators watch Flower, which shows only events.
    worker_send_task_events=True,
    task_track_started=True,
    event_queue_ttl=60,
    # No process waits for a result over Celery: it would block for 19 s when Redis is down.
    result_backend=None,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    beat_schedule={
        # Without `expires`, which is a time of day: worker/runtime/scheduler.py keeps these from filling their queue.
        "dispatch what is due": {
            "task": task_names.POSTS_DISPATCH_DUE,
            "schedule": _config.dispatch_period,
            "options": {"argsrepr": "()", "kwargsrepr": ""},
        },
        "rescue what was forgotten": {
            "task": task_names.OPS_RESCUE,
            "schedule": _config.rescue_period,
            "options": {"argsrepr": "()", "kwargsrepr": ""},
        },
    },
    beat_max_loop_interval=1,
)


worker_metrics.watch_worker()


@setup_logging.connect
def _one_log(**_: Any) -> None:
    """Celery's own lines go where ours go, in the same form."""
    logs.configure(process=lambda: worker_metrics.worker_name() or "beat", task_id=_task_id)


def _task_id() -> str | None:
    task = app.current_task
    return task.request.id if task else None


@worker_init.connect
def _before_forking(**_: Any) -> None:
    """Children share the modules that are imported by now; their garbage collections must not copy them."""
    gc_tuning.freeze()


@worker_process_init.connect
def _child_begins(**_: Any) -> None:
    _warm()
    gc_tuning.freeze()


def _warm() -> None:
    """Connect before the first doorbell, so that the first edit is as fast as the rest."""
    try:
        with db.engine().connect(), db.autocommit_relaxed():
            pass
    except Exception as error:  # noqa: BLE001  -- a worker may start before its database; tasks will say so
        log.warning("database_not_ready", error=type(error).__name__)


@worker_ready.connect
def _main_begins(sender: Any, **_: Any) -> None:
    """Log where this worker calls outside services, or that a sandbox answers in their place.

    Freezes the garbage collector once more, for what Celery's consumer made since the children were forked.
    """
    queues = set(sender.app.amqp.queues.consume_from)
    services.announce(queues)
    if queues & {"publish", "render", "webhooks"}:
        _warm()  # a pool of threads: otherwise the first tasks would all make the process's one engine at once
    gc_tuning.freeze()


@worker_shutting_down.connect
def _begin_no_more_calls(**_: Any) -> None:
    """Calls in flight are finished within the grace. Tasks that wait for capacity end, and leave their posts."""
    call_pool.stop_all()


def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Register a task. When PostgreSQL is away, the task sends its own message again, a second later, and ends."""

    def decorate(run: Callable[..., Any]) -> Any:
        @functools.wraps(run)
        def guarded(*args: Any) -> Any:
            try:
                return run(*args)
            except Exception as error:  # noqa: BLE001  -- raised again, redacted, or sent again
                # The edge: a transient error is retried, a surprise is shown to the operator as a failure.
                if not (db.is_transient(error) or isinstance(error, StaleWriteError)):
                    # Celery shows in Flower what is raised here, and a driver's message quotes the row.
                    raise logs.redacted(error) from None
                log.warning("task_put_off", task=name, error=type(error).__name__)
                if name not in (task_names.OPS_RESCUE, task_names.POSTS_DISPATCH_DUE):
                    queue.send(name, args, shown="again", countdown=1 + random.random())  # noqa: S311  -- spread only
                return {"put_off": type(error).__name__}

        register: Callable[..., Any] = app.task(name=name, typing=False, **options)
        return register(work_lines.noted(name, metrics.counted(name, tracing.traced(name, guarded))))

    return decorate
