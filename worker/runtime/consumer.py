"""Celery's consumer, which survives messages that it cannot read: every client of Redis can put anything on a queue.

docs/faults.md, row 10.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.asynchronous import set_event_loop

# kombu waits two seconds longer after each try, up to thirty. After an hour without Redis a worker would lose those.
LONGEST_WAIT = 4

NEVER_SENT = ("shadow", "stamped_headers", "callbacks", "errbacks", "chain", "chord")


class Consumer(CeleryConsumer):
    """A message of a shape that Celery does not expect is shown in the log and acknowledged.

    Celery itself would stop the worker and give the message back, and it would stop the next worker too.
    """

    # Attributes of Celery's class that its stubs leave out.
    connection_errors: tuple[type[Exception], ...]
    hub: Any

    def connect(self) -> Any:
        # Celery resets the hub with each lost connection, and worker/runtime/events.py would find none afterwards.
        set_event_loop(self.hub)
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; within seconds once Redis is back."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=LONGEST_WAIT)
        return super().ensure_connected(conn)

    def create_task_handler(self, *given: Any, **options: Any) -> Callable[[Any], Any]:
        handle = super().create_task_handler(*given, **options)

        def guarded(message: Any) -> Any:
            try:
                _check(message)
                return handle(message)
            except Exception as error:  # the edge: a stranger's message can raise anything
                # kombu counts a KeyError as a lost connection: Celery would give the message back each time.
                if isinstance(error, self.connection_errors) and not isinstance(error, KeyError):
                    raise
                return self.on_invalid_task(None, message, error)

        return guarded


def _check(message: Any) -> None:
    """Raise InvalidTaskError for what Celery does not check, and what would break a place in its pool for good.

    No message of ours has limits of its own, another name, stamps, or callbacks.
    """
    headers = message.headers
    args, kwargs, embed = message.payload
    if not (
        isinstance(headers["id"], str)
        and headers.get("timelimit") in (None, [None, None])
        and not any(headers.get(name) for name in NEVER_SENT)
        and isinstance(args, list)
        and isinstance(kwargs, dict)
        and isinstance(embed, dict)
        and not any(embed.values())
    ):
        raise InvalidTaskError("not a message of ours")
