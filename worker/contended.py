"""Posts that somebody held, tried again together (shared/broker/contended_posts.py says why)."""

from collections import defaultdict

from shared.broker import answers, contended_posts, queue
from shared.domain.queued_edits import EditResult
from shared.store import edits as edits_store
from shared.store.db import transaction
from worker.apply import Applied, apply_edits


def try_again(token: str | None) -> tuple[Applied, dict[str, list[EditResult]]]:
    """What became of them, and the ends to tell of, by address. `token`: which message this is (`held.ring`)."""
    addresses = contended_posts.take(token)
    applied = apply_edits(addresses)
    free = addresses.keys() - set(applied.held)
    contended_posts.forget(free)
    if len(addresses) == queue.DOORBELL_POSTS:
        contended_posts.ring(list(addresses)[:1])  # there may be more, and nobody else to ring for them
    # Only now: an edit of one of them that came meanwhile was left to us.
    with transaction() as tx:
        applied.more = sorted({*applied.more, *edits_store.posts_with_a_queue(tx, free)})
    # Each process hears once, and of its own posts: they were rung for by as many bells as they have edits, and each
    # of those has been answered long since.
    told: dict[str, list[EditResult]] = defaultdict(list)
    listening: dict[str, str] = {}
    post_of = {edit.id: edit.post_id for edit in applied.read}
    for end in applied.ends:
        address = addresses.get(post_of[end.id])
        if address:
            told[listening.setdefault(answers.channel_of(address), address)].append(end)
    return applied, told
