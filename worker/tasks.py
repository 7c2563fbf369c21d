"""Every task, at most ten lines each: check what came, call the room that knows, ring what follows."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from shared import outcomes, queue
from shared.settings import settings
from worker import apply, publish, render, rescue, schedule
from worker.app import task
from worker.apply import Applied
from worker.publish import Published
from worker.render import Rendering


@task(queue.EDITS_APPLY)
def apply_edits(post_ids: Any = (), reply_to: Any = None) -> dict[str, int]:
    """Apply the queued edits of these posts and answer the process that rang."""
    reply_to = reply_to if isinstance(reply_to, str) else None
    applied = apply.apply_edits(_ids(post_ids))
    outcomes.announce(reply_to, applied.ends)
    _ring(applied, reply_to)
    return applied.summary()


@task(queue.POSTS_PUBLISH)
def publish_posts(pairs: Any = ()) -> dict[str, int]:
    """Publish posts that are due, several side by side."""
    return publish.publish(_pairs(pairs), _calls(), _ring_published).summary()


@task(queue.POSTS_RENDER)
def render_post(post_id: Any = None, content_revision: Any = None) -> dict[str, int]:
    """Render one post."""
    wanted = _pairs([[post_id, content_revision]])
    return {render.render(*wanted[0], _ring_rendering).outcome: 1} if wanted else {}


@task(queue.POSTS_DISPATCH_DUE)
def dispatch_due() -> dict[str, int]:
    """Enqueue what comes due within the horizon."""
    return {"enqueued": schedule.dispatch_due()}


@task(queue.OPS_RESCUE)
def rescue_forgotten() -> dict[str, int]:
    """Ring again for what the broker forgot."""
    return rescue.rescue()


def _ids(given: Any) -> list[str]:
    """The ids among what a message carries: anybody can put anything on a queue (FAULTS 10)."""
    return [one for one in given if isinstance(one, str) and one] if isinstance(given, list) else []


def _pairs(given: Any) -> list[tuple[str, int]]:
    pairs = given if isinstance(given, list) else []
    return [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)
    ]


@lru_cache(maxsize=1)
def _calls() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings().publish_concurrency, thread_name_prefix="publish")


def _ring(applied: Applied, reply_to: str | None = None) -> None:
    """What an apply leaves to be rung, below its commits."""
    queue.enqueue_publish(applied.publishes)
    queue.enqueue_renders(applied.renders)
    queue.ring_edits(applied.more, reply_to)
    queue.ring_edits(applied.held, reply_to, countdown=0.25)


def _ring_published(done: Published) -> None:
    _ring(done.applied)
    queue.ring_edits(done.edits)
    queue.enqueue_publish(done.early)
    queue.enqueue_publish(done.again, countdown=0.25)


def _ring_rendering(done: Rendering) -> None:
    _ring(done.applied)
    queue.ring_edits(done.edits)
    queue.enqueue_renders(done.again, countdown=0.25)
    queue.enqueue_publish(done.publish)
