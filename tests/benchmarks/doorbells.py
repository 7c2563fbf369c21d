"""Ringing from outside, for rows that put edits straight into the database: what rescue would do, all at once."""

from collections.abc import Sequence

from celery import Celery

from shared import task_names
from shared.broker import queue
from shared.settings import Settings
from tests.benchmarks.ground import Stage


def ring(stage: Stage, post_ids: Sequence[str]) -> int:
    """Doorbells of the usual size for all of these posts; how many."""
    app = Celery("bench", set_as_current=False)
    app.conf.update(queue.broker_options(Settings(redis_url=stage.redis_url)))
    starts = range(0, len(post_ids), queue.DOORBELL_POSTS)
    for start in starts:
        some = list(post_ids[start : start + queue.DOORBELL_POSTS])
        app.send_task(task_names.EDITS_APPLY, args=[some, None], argsrepr=f"({queue.readable(some)})", kwargsrepr="")
    app.close()
    return len(starts)
