"""What the broker forgot, found in the rows and rung again."""

import structlog

from shared.broker import queue
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import db
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import posts as posts_store
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_turns as turns_store
from shared.store import webhooks as webhooks_store
from shared.store.db import transaction
from shared.telemetry import logs
from worker import awake, published, schedule
from worker.follow_ups import FollowUps, JobStep, Publish, Render

# Younger edits have a doorbell under way; an answer takes milliseconds.
FORGOTTEN_AFTER = 1.0
# A chunk takes a fraction of a second, and each touches its job.
STALLED_AFTER = 5.0
EXPIRED_AT_ONCE = 500
# 100,000 keys a run, 20,000 a second: several times what one database takes in. A page is deleted in some 50 ms.
KEYS_A_PAGE, KEY_PAGES = 5_000, 20
# 2,000 delivered events a second, each with the log of its tries.
EVENT_PAGES = 10
# 100,000 waiting events a run; the next run goes on behind them.
EVENT_LOOKS = 5

_webhooks_from = {"place": ""}
"""Where this process's next look for forgotten webhooks begins: a million of them are looked at in parts. A process
that dies begins anew.
"""

log = structlog.get_logger(__name__)


def rescue() -> dict[str, int]:
    """Ring again for queued edits, due posts, lost renders and expired claims. Returned: how many of each.

    A step that fails does not keep the others from running. Its error is raised at the end, a surprise before a
    transient error.
    """
    steps = {
        "hands": awake.recover_dead,
        "edits": _edits,
        "publishes": schedule.dispatch_due,
        "renders": schedule.dispatch_renders,
        "claims": _claims,
        "published": _published,
        "reschedules": _reschedules,
        "webhooks": _webhooks,
        "events": _delivered_events,
        "keys": _expired_keys,
    }
    found: dict[str, int] = {}
    errors: list[Exception] = []
    for what, step in steps.items():
        try:
            found[what] = step()
        except Exception as error:  # noqa: BLE001  -- raised again below, after the other steps
            log.warning("rescue_step_failed", step=what, error=type(error).__name__, reason=str(logs.redacted(error)))
            errors.append(error)
    if errors:
        raise next((error for error in errors if not db.is_transient(error)), errors[0])
    return {what: count for what, count in found.items() if count}


def _edits() -> int:
    room = queue.free_capacity("edits")
    if not room:
        return 0
    with transaction() as tx:
        post_ids = edits_store.forgotten_posts(tx, FORGOTTEN_AFTER, min(room, 20) * queue.DOORBELL_POSTS)
    FollowUps(edits=post_ids).send()
    return len(post_ids)


def _claims() -> int:
    publish = min(EXPIRED_AT_ONCE, queue.free_capacity("publish") * queue.PUBLISHES_A_MESSAGE)
    render = min(EXPIRED_AT_ONCE, queue.free_capacity("render"))
    with transaction() as tx:
        publishes = claims_store.expired(tx, "publish", publish)
        renders = claims_store.expired(tx, "render", render)
        # A message for a contended post comes back four times a second, and each run would add another one.
        free = posts_store.lock_posts(tx, [post_id for post_id, _ in (*publishes, *renders)], "skip")
    follow_ups = FollowUps(
        publishes=[Publish(post_id, revision) for post_id, revision in publishes if post_id in free],
        renders=[Render(post_id, revision) for post_id, revision in renders if post_id in free],
    )
    follow_ups.send()
    return len(follow_ups.publishes) + len(follow_ups.renders)


def _published() -> int:
    return len(published.finish_unnoticed())


def _reschedules() -> int:
    """Ring for bulk jobs that no task works on; none while as many messages wait as there are jobs."""
    with transaction() as tx:
        live = turns_store.live(tx, STALLED_AFTER)
        # The freezing of a large job touches it at its end, and other jobs of its workspace wait for that. One more
        # message a run would stay with each.
        stalled = [
            job.id
            for job in live
            if job.stalled
            and all(chunks_store.take(tx, name, chunks_store.FREEZING) for name in (job.id, job.freezes_in) if name)
        ]
    room = queue.free_capacity("bulk") if stalled else 0
    if settings().queue_full - room >= len(live):
        return 0
    rung = stalled[:room]
    follow_ups = FollowUps()
    follow_ups.snooze(0.0, *map(JobStep, rung))
    follow_ups.send()
    return len(rung)


def _webhooks() -> int:
    if not webhooks_store.wanted():
        return 0
    room = queue.free_capacity("webhooks")
    limit, found = min(room, 20) * queue.DOORBELL_POSTS, list[str]()
    for _ in range(EVENT_LOOKS):
        if len(found) >= limit:
            break
        with transaction() as tx:
            some, place = webhooks_store.forgotten(tx, FORGOTTEN_AFTER, limit - len(found), _webhooks_from["place"])
        found += some
        _webhooks_from["place"] = place
        if not place:
            break
    FollowUps(webhooks=found).send()
    return len(found)


def _delivered_events() -> int:
    """Delete old events, each page in a transaction of its own."""
    gone = 0
    for _ in range(EVENT_PAGES):
        with transaction() as tx:
            page = webhooks_store.forget_delivered(tx)
        gone += page
        if page < webhooks_store.FORGOTTEN_A_PAGE:
            break
    return gone


def _expired_keys() -> int:
    """Delete expired keys, each page in a transaction of its own. A run may delete more than come in meanwhile."""
    gone = 0
    for _ in range(KEY_PAGES):
        with transaction() as tx:
            page = idempotency_store.forget_expired(tx, settings().idempotency_hours, KEYS_A_PAGE)
        gone += page
        if page < KEYS_A_PAGE:
            break
    return gone
