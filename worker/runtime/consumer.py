"""Celery's consumer, made to outlive what it cannot read: anybody can put anything on a queue (FAULTS 10)."""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.asynchronous import set_event_loop

# kombu waits two seconds longer from try to try, up to thirty: whoever ended an hour without Redis would wait for that.
LONGEST_WAIT = 4

NEVER_SAID = ("shadow", "stamped_headers", "callbacks", "errbacks", "chain", "chord")


class Consumer(CeleryConsumer):
    """A message of a shape that Celery does not expect is shown in the log and acknowledged.

    Celery itself would end the worker and give the message back, to end the next worker too.
    """

    # What Celery's own class holds; its stubs leave them out.
    connection_errors: tuple[type[Exception], ...]
    hub: Any

    def connect(self) -> Any:
        # Celery resets the hub with each connection that is lost, and worker/runtime/events.py would find none from
        # then on.
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
            except Exception as error:  # the edge: whatever a stranger's message trips over
                # kombu counts a KeyError as a lost connection: Celery would give the message back, again and again.
                if isinstance(error, self.connection_errors) and not isinstance(error, KeyError):
                    raise
                return self.on_invalid_task(None, message, error)

        return guarded


def _check(message: Any) -> None:
    """Raise for what Celery trusts unseen and trips over once the message has a place in the pool: for good, then.

    Nothing of ours has limits of its own (SPEC 7), another name, stamps, or something to call afterwards.
    """
    headers = message.headers
    args, kwargs, embed = message.payload
    if not (
        isinstance(headers["id"], str)
        and headers.get("timelimit") in (None, [None, None])
        and not any(headers.get(name) for name in NEVER_SAID)
        and isinstance(args, list)
        and isinstance(kwargs, dict)
        and isinstance(embed, dict)
        and not any(embed.values())
    ):
        raise InvalidTaskError("not a message of ours")
