"""Events for Flower, sent in batches: Celery's own way costs as much as everything else about a doorbell.

Dispatch and rescue run some seventy times a minute, and most of these find nothing to do. Flower does not show those.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import get_event_loop

from shared import task_names

# A person watches Flower, not a program: a tenth of a second later is as good, and one message serves a busy tenth.
PERIOD = 0.1
KEPT_WHILE_OFFLINE = 10_000


QUIET = frozenset((task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE))
"""Tasks that are not shown when they found nothing to do."""

NOTHING = "{}"
"""Their result then, as it stands in an event."""

WITHHELD_FOR = 1.0
"""Seconds. A quiet task that is still at work then is shown."""

Event = tuple[str, dict[str, Any]]
"""Its type, such as `task-started`, and its fields."""


class Withheld:
    """The events of quiet tasks that may still turn out to have found nothing to do. Pure."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}

    def pass_on(self, kind: str, fields: dict[str, Any]) -> list[Event]:
        """What to send when this event comes: nothing, the event, or with it those of its task that were withheld."""
        task, event = fields.get("uuid", ""), (kind, fields)
        if kind == "task-received" and fields.get("name") in QUIET:
            self._events[task] = [event]
            return []
        before = self._events.pop(task, None)
        if before is None:
            return [event]
        if kind == "task-started":
            self._events[task] = [*before, event]
            return []
        return [] if kind == "task-succeeded" and fields.get("result") == NOTHING else [*before, event]

    def release(self, task: str) -> list[Event]:
        """The events of a task that takes long. Those that follow are sent as they come."""
        return self._events.pop(task, [])


class BatchingDispatcher(EventDispatcher):
    """Celery's dispatcher, which sends what it has gathered every tenth of a second, if there is anything."""

    # Attributes of Celery's class that its stubs leave out.
    on_send_buffered: Callable[[], object] | None
    _group_buffer: dict[str, list[Any]]
    _outbound_buffer: deque[Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Celery's has no bound: an hour without Redis would fill the worker's memory.
        self._outbound_buffer = deque(maxlen=KEPT_WHILE_OFFLINE)
        self._due = False
        self._withheld = Withheld()
        if self.on_send_buffered is not None:
            self.on_send_buffered = self._soon

    def send(self, type: str, *given: Any, **fields: Any) -> None:  # noqa: A002  -- Celery's name
        """Send an event, or withhold it for a moment."""
        hub = get_event_loop()
        if hub is None or "uuid" not in fields:
            super().send(type, *given, **fields)
            return
        # The time of what happened, not of what is sent.
        due = self._withheld.pass_on(type, {"timestamp": time.time(), **fields})
        if not due and type == "task-received":
            hub.call_later(WITHHELD_FOR, self._release, fields["uuid"])
        self._send_all(due)

    def _release(self, task: str) -> None:
        self._send_all(self._withheld.release(task))

    def _send_all(self, events: list[Event]) -> None:
        for kind, fields in events:
            super().send(kind, **fields)

    def flush(self, errors: bool = True, groups: bool = True) -> None:  # noqa: FBT001, FBT002  -- Celery's signature
        """Send what was gathered."""
        if groups and not any(self._group_buffer.values()):
            groups = False
        super().flush(errors=errors, groups=groups)

    def _soon(self) -> None:
        hub = None if self._due else get_event_loop()
        if hub is not None:
            self._due = True
            hub.call_later(PERIOD, self._now)

    def _now(self) -> None:
        self._due = False
        self.flush()


class BatchingEvents(Events):
    """Celery's events with that dispatcher."""

    dispatcher_cls = "worker.runtime.events:BatchingDispatcher"
