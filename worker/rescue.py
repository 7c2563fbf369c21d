"""What the broker forgot, found in the rows and rung again (SPEC 1, 7)."""

from shared import queue
from shared.db import transaction
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from worker import schedule

# Younger edits have a doorbell under way; an answer takes milliseconds.
FORGOTTEN_AFTER = 1.0
EXPIRED_AT_ONCE = 500


def rescue() -> dict[str, int]:
    """Ring again for queued edits, due posts, lost renders and expired claims; how many of each."""
    found = {
        "edits": _edits(),
        "publishes": schedule.dispatch_due(),
        "renders": schedule.dispatch_renders(),
        "claims": _claims(),
        "keys": _expired_keys(),
    }
    return {what: count for what, count in found.items() if count}


def _edits() -> int:
    room = queue.room_in("edits")
    if not room:
        return 0
    with transaction() as tx:
        post_ids = edits_store.forgotten_posts(tx, FORGOTTEN_AFTER, min(room, 20) * queue.DOORBELL_POSTS)
    queue.ring_edits(post_ids)
    return len(post_ids)


def _claims() -> int:
    with transaction() as tx:
        expired = claims_store.expired(tx, EXPIRED_AT_ONCE)
    publishes = [(post_id, revision, None) for post_id, kind, revision in expired if kind == "publish"]
    renders = [(post_id, revision) for post_id, kind, revision in expired if kind == "render"]
    if publishes and queue.room_in("publish"):
        queue.enqueue_publish(publishes)
    if renders and queue.room_in("render"):
        queue.enqueue_renders(renders)
    return len(expired)


def _expired_keys() -> int:
    with transaction() as tx:
        return idempotency_store.forget_expired(tx, settings().idempotency_hours)
