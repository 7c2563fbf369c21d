"""What is due soon: mark it under its lock, commit, then enqueue."""

from collections.abc import Iterator

from shared.broker import queue
from shared.settings import settings
from shared.store import posts as posts_store
from shared.store import schedule as schedule_store
from shared.store import scope_holds
from shared.store.db import transaction
from shared.store.schedule import Kind, Marked
from worker.follow_ups import FollowUps, Publish, Render

BATCH = 1000
# A run looks no further: half of these fill an empty queue, the others look past contended posts.
PAGES = 100


def mark(kind: Kind, room: int) -> Iterator[list[Marked]]:
    """Find and mark posts to be sent for, at most `room`, a page at a time, each committed before it is given out.

    Only the task that marks a post sends for it. The look takes no lock, and finds contended posts as well. So each
    page goes on behind the one before: a thousand contended posts would otherwise hide all others.
    """
    config, after = settings(), schedule_store.FIRST
    for _ in range(PAGES):
        wanted = min(room, BATCH)
        if not wanted:
            return
        with transaction() as tx:
            found = schedule_store.find_due(tx, kind, config.horizon, wanted, after)
            locked = posts_store.lock_posts(tx, [place.post_id for place in found], "skip")
            marked = schedule_store.mark_due(tx, kind, locked, config.horizon) if locked else []
        yield marked
        if len(found) < wanted:
            return
        room, after = room - len(marked), found[-1]


def mark_missed() -> int:
    """Mark posts that came due while their account or workspace is held, a page at a time. Returned: how many."""
    marked = 0
    for _ in range(PAGES):
        with transaction() as tx:
            page, webhooks = scope_holds.miss_page(tx, BATCH)
        FollowUps(webhooks=webhooks).send()
        marked += page
        if page < BATCH:
            break
    return marked


def dispatch_due() -> int:
    """Enqueue the publishes that come due within the horizon, while their queue has room. Returned: how many."""
    sent = 0
    mark_missed()
    for marked in mark("publish", queue.free_capacity("publish") * queue.PUBLISHES_A_MESSAGE):
        FollowUps(publishes=[Publish(post.post_id, post.revision, post.at) for post in marked]).send()
        sent += len(marked)
    return sent


def dispatch_renders() -> int:
    """Enqueue renders whose message was lost or never sent, while their queue has room. Returned: how many."""
    sent = 0
    for marked in mark("render", queue.free_capacity("render")):
        FollowUps(renders=[Render(post.post_id, post.revision) for post in marked]).send()
        sent += len(marked)
    return sent
