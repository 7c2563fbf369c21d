"""Every task, at most ten lines each: check the message, call the module that does the work, send what follows."""

from typing import Any

from shared import task_names
from shared.broker import answers
from shared.broker.doorbells import Bell
from shared.domain.ids import is_id
from shared.settings import settings
from shared.telemetry import metrics
from shared.telemetry.code_version import code_version
from worker import awake, contended, publish, render, reschedule_turns, rescue, schedule, webhooks
from worker.follow_ups import FollowUps
from worker.outbound.call_pool import CallPool
from worker.runtime.app import task

_publishes = CallPool(settings().publish_calls)
_deliveries = CallPool(settings().webhook_calls)

# Before the pool forks: each child reports the code that it was forked with, whatever stands on the disk later.
metrics.CODE.labels(*code_version()).set(1)


@task(task_names.EDITS_APPLY)
def apply_edits(post_ids: Any = (), reply_to: Any = None) -> dict[str, Any]:
    """Wake up for the queued edits of these posts, or of contended posts, and answer the processes that rang."""
    reply_to = reply_to if is_id(reply_to) else None
    named = _ids(post_ids)
    return awake.serve(Bell(named, reply_to)) if named else _retry_contended(reply_to)


@task(task_names.POSTS_PUBLISH)
def publish_posts(pairs: Any = ()) -> dict[str, int]:
    """Publish posts that are due, several side by side."""
    return publish.publish(_pairs(pairs), _publishes, FollowUps.send).summary()


@task(task_names.POSTS_RENDER)
def render_post(post_id: Any = None, content_revision: Any = None) -> dict[str, int]:
    """Render one post."""
    wanted = _pairs([[post_id, content_revision]])
    return {render.render(*wanted[0], FollowUps.send).outcome: 1} if wanted else {}


@task(task_names.RESCHEDULES_RUN_CHUNK)
def run_chunk(reschedule_id: Any = None) -> dict[str, Any]:
    """One step of a bulk job, then ring for the next."""
    if not isinstance(reschedule_id, str):
        return {}
    turn = reschedule_turns.take_turn(reschedule_id)
    turn.follow_ups.send()
    return turn.summary()


@task(task_names.WEBHOOKS_DELIVER)
def deliver_webhooks(post_ids: Any = ()) -> dict[str, int]:
    """Tell the receiver of webhooks what happened to these posts, in order for each."""
    return webhooks.deliver(_ids(post_ids), _deliveries, FollowUps.send)


@task(task_names.POSTS_DISPATCH_DUE)
def dispatch_due() -> dict[str, int]:
    """Enqueue what comes due within the horizon."""
    enqueued = schedule.dispatch_due()
    return {"enqueued": enqueued} if enqueued else {}


@task(task_names.OPS_RESCUE)
def rescue_forgotten() -> dict[str, int]:
    """Ring again for what the broker forgot."""
    return rescue.rescue()


def _ids(given: Any) -> list[str]:
    """The ids among what a message carries: every client of Redis can put anything on a queue (docs/faults.md)."""
    return [one for one in given if is_id(one)] if isinstance(given, list) else []


def _pairs(given: Any) -> list[tuple[str, int]]:
    pairs = given if isinstance(given, list) else []
    return [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and is_id(pair[0]) and isinstance(pair[1], int)
    ]


def _retry_contended(token: str | None) -> dict[str, int]:
    applied, results = contended.retry(token)
    answers.announce([answers.announcement(address, some) for address, some in results.items()])
    applied.follow_ups.send()
    return applied.summary()
