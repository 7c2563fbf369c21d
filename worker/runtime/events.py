"""Events for Flower, sent in batches: Celery's own way costs as much as everything else about a doorbell."""

from collections import deque
from collections.abc import Callable
from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import get_event_loop

# A person watches Flower, not a program: a tenth of a second later is as good, and one message serves a busy tenth.
PERIOD = 0.1
KEPT_WHILE_OFFLINE = 10_000


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
        if self.on_send_buffered is not None:
            self.on_send_buffered = self._soon

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
