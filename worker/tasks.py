"""Every task, at most ten lines each: check what came, call the room that knows, ring what follows."""

from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from shared import task_names
from shared.broker import answers, contended_posts, queue
from shared.domain.ids import is_id
from shared.settings import settings
from worker import apply, contended, publish, render, reschedule, rescue, schedule, webhooks
from worker.apply import Applied
from worker.outbound.call_pool import CallPool
from worker.published import Published
from worker.render import Rendering
from worker.runtime.app import task

_publishes = CallPool(settings().publish_calls)
_deliveries = CallPool(settings().webhook_calls)


@task(task_names.EDITS_APPLY)
def apply_edits(post_ids: Any = (), reply_to: Any = None) -> dict[str, int]:
    """Apply the queued edits of these posts, or of those that were held, and answer the process that rang."""
    reply_to = reply_to if is_id(reply_to) else None
    named = _ids(post_ids)
    if not named:
        return _try_held_again(reply_to)
    applied = apply.apply_edits(named, partial(answers.announce, reply_to, more=True), contended_posts.known)
    answers.announce(reply_to, applied.ends[applied.announced :])
    _ring(applied, reply_to)
    return applied.summary()


@task(task_names.POSTS_PUBLISH)
def publish_posts(pairs: Any = ()) -> dict[str, int]:
    """Publish posts that are due, several side by side."""
    return publish.publish(_pairs(pairs), _publishes, _ring_published).summary()


@task(task_names.POSTS_RENDER)
def render_post(post_id: Any = None, content_revision: Any = None) -> dict[str, int]:
    """Render one post."""
    wanted = _pairs([[post_id, content_revision]])
    return {render.render(*wanted[0], _ring_rendering).outcome: 1} if wanted else {}


@task(task_names.RESCHEDULES_RUN_CHUNK)
def run_chunk(reschedule_id: Any = None) -> dict[str, Any]:
    """One step of a bulk job, then ring for the next."""
    if not isinstance(reschedule_id, str):
        return {}
    turn = reschedule.take_turn(reschedule_id)
    for job_id, shown, seconds in turn.messages:
        queue.ring_reschedule(job_id, shown, seconds)
    for ran in turn.done:
        _ring(ran.applied)
    return turn.summary()


@task(task_names.WEBHOOKS_DELIVER)
def deliver_webhooks(post_ids: Any = ()) -> dict[str, int]:
    """Tell the receiver of webhooks what happened to these posts, in order for each."""
    return webhooks.deliver(_ids(post_ids), _deliveries, queue.ring_webhooks)


@task(task_names.POSTS_DISPATCH_DUE)
def dispatch_due() -> dict[str, int]:
    """Enqueue what comes due within the horizon."""
    return {"enqueued": schedule.dispatch_due()}


@task(task_names.OPS_RESCUE)
def rescue_forgotten() -> dict[str, int]:
    """Ring again for what the broker forgot."""
    return rescue.rescue()


def _ids(given: Any) -> list[str]:
    """The ids among what a message carries: anybody can put anything on a queue (FAULTS 10)."""
    return [one for one in given if is_id(one)] if isinstance(given, list) else []


def _pairs(given: Any) -> list[tuple[str, int]]:
    pairs = given if isinstance(given, list) else []
    return [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and is_id(pair[0]) and isinstance(pair[1], int)
    ]


def _ring(applied: Applied, reply_to: str | None = None) -> None:
    """What an apply leaves to be rung, below its commits."""
    queue.enqueue_publish(applied.publishes)
    queue.enqueue_renders(applied.renders)
    queue.ring_edits(applied.more, reply_to)
    contended_posts.ring(applied.held, reply_to)
    queue.ring_webhooks(applied.told)


def _try_held_again(token: str | None) -> dict[str, int]:
    applied, told = contended.try_again(token)
    for address, ends in told.items():
        answers.announce(address, ends)
    _ring(applied)
    return applied.summary()


def _edits_first(post_ids: list[str]) -> None:
    """Ring for edits that a claim must not run itself. Claims come back four times a second: an `edits` queue that
    nobody works on must not fill up with that.
    """
    if post_ids and queue.free_capacity("edits"):
        queue.ring_edits(post_ids)


def _ring_published(done: Published) -> None:
    _ring(done.applied)
    _edits_first(done.edits)
    queue.ring_webhooks(done.told)
    queue.enqueue_publish(done.later)
    queue.enqueue_publish([(post_id, revision, None) for post_id, revision in done.again], countdown=0.25)
    for seconds, some in groupby(sorted(done.early, key=itemgetter(2)), itemgetter(2)):
        queue.enqueue_publish([(post_id, revision, None) for post_id, revision, _ in some], countdown=seconds)


def _ring_rendering(done: Rendering) -> None:
    _ring(done.applied)
    _edits_first(done.edits)
    queue.enqueue_renders(done.again, countdown=0.25)
    for post_id, revision, seconds in done.later:
        queue.enqueue_renders([(post_id, revision)], countdown=seconds)
    queue.enqueue_publish(done.publish)
    queue.ring_webhooks(done.told)
