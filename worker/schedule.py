"""What is due soon: mark it under its lock, commit, then enqueue (SPEC 6)."""

from shared import queue
from shared.db import transaction
from shared.settings import settings
from shared.store import posts as posts_store
from shared.store import schedule as schedule_store
from shared.store.schedule import Kind, Marked

BATCH = 1000


def mark(kind: Kind, limit: int) -> list[Marked]:
    """Find and mark posts to be sent for, at most `limit`. Whoever marks a post sends for it, nobody else does."""
    config = settings()
    with transaction() as tx:
        ids = schedule_store.find_due(tx, kind, config.horizon, min(limit, BATCH))
        locked = posts_store.lock_posts(tx, ids, "skip")
        return schedule_store.mark_due(tx, kind, locked, config.horizon) if locked else []


def dispatch_due() -> int:
    """Enqueue the publishes that come due within the horizon, while their queue has room; how many."""
    room = queue.room_in("publish") * queue.PUBLISHES_A_MESSAGE
    sent = 0
    while room > sent:
        marked = mark("publish", room - sent)
        queue.enqueue_publish([(post.post_id, post.revision, post.at) for post in marked])
        sent += len(marked)
        if len(marked) < BATCH:
            break
    return sent


def dispatch_renders() -> int:
    """Enqueue renders whose message was lost or never sent, while their queue has room; how many."""
    room = queue.room_in("render")
    marked = mark("render", room) if room else []
    queue.enqueue_renders([(post.post_id, post.revision) for post in marked])
    return len(marked)
