"""Celery's scheduler, which piles up no messages while no worker takes them, and survives a clock that is set back."""

from datetime import UTC, datetime
from typing import Any, Final

import structlog
from celery.beat import Scheduler as CeleryScheduler

from shared import task_names
from shared.broker import queue
from shared.settings import settings

# Dispatch comes several times as often. Under one limit for both, rescue would hardly ever be sent.
_WAITING_AT_MOST: Final = {
    task_names.POSTS_DISPATCH_DUE: queue.WAITING_BEATS,
    task_names.OPS_RESCUE: 2 * queue.WAITING_BEATS,
}

log = structlog.get_logger(__name__)


class Scheduler(CeleryScheduler):
    """Sends nothing while its messages wait on their queue: an hour without workers fills nothing.

    Celery's own option for that, `expires`, is a time of day. A worker whose clock is ahead by more than the period
    would drop every dispatch and every rescue (docs/faults.md, row 19).
    """

    _last_tick = datetime.min.replace(tzinfo=UTC)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send, if its queue has room. While Redis is away that cannot be known, and nothing is sent."""
        full = settings().queue_full
        if queue.free_capacity(task_names.QUEUE_OF[entry.task]) <= max(0, full - _WAITING_AT_MOST[entry.task]):
            log.debug("beat_waits", task=entry.task)
            return
        super().apply_entry(entry, producer)

    def tick(self, *given: Any, **options: Any) -> Any:
        """One round. After a clock was set back Celery would wait until it has caught up; this begins anew instead."""
        now: datetime = self.app.now()
        if now < self._last_tick:
            for entry in self.schedule.values():
                entry.last_run_at = now
            self._heap = None
        self._last_tick = now
        return super().tick(*given, **options)
