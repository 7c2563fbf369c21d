"""Celery's consumer, made to outlive what it cannot read: anybody can put anything on a queue (FAULTS 10)."""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

# kombu waits two seconds longer from try to try, up to thirty: whoever ended an hour without Redis would wait for that.
LONGEST_WAIT = 4


class Consumer(CeleryConsumer):
    """A message of a shape that Celery does not expect is shown in the log and acknowledged.

    Celery itself would end the worker and give the message back, to end the next worker too.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; within seconds once Redis is back."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=LONGEST_WAIT)
        return super().ensure_connected(conn)

    def create_task_handler(self, *given: Any, **options: Any) -> Callable[[Any], Any]:
        handle = super().create_task_handler(*given, **options)

        def guarded(message: Any) -> Any:
            try:
                return handle(message)
            except self.connection_errors:  # type: ignore[attr-defined]  # the stubs leave it out
                raise
            except Exception as error:  # noqa: BLE001  -- the edge: whatever a stranger's message trips over
                return self.on_invalid_task(None, message, error)

        return guarded
