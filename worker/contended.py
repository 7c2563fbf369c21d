"""Contended posts: another session had them locked, and they are tried again together.

shared/broker/contended_posts.py says why one message serves them all.
"""

from collections import defaultdict

from shared.broker import answers, contended_posts, queue
from shared.domain.queued_edits import EditResult
from shared.store import edits as edits_store
from shared.store.db import transaction
from worker.apply import Applied, apply_edits
from worker.follow_ups import FollowUps


def retry(token: str | None) -> tuple[Applied, dict[str, list[EditResult]]]:
    """Apply the edits of contended posts. Returned: what was applied, and the results to announce, by address.

    `token`: the one that this message carries (shared/broker/contended_posts.py).
    """
    addresses = contended_posts.take(token)
    applied = apply_edits(addresses)
    free = addresses.keys() - set(applied.follow_ups.contended)
    contended_posts.forget(free)
    if len(addresses) == queue.DOORBELL_POSTS:
        # There may be more posts than one message takes, and no other message that would come for them.
        FollowUps(contended=list(addresses)[:1]).send()
    # Read only now: an edit that came for one of these posts meanwhile was left to this task.
    with transaction() as tx:
        applied.follow_ups.edits = sorted({*applied.follow_ups.edits, *edits_store.posts_with_a_queue(tx, free)})
    # One answer for each API process, with the results of its own posts. Each post was rung for by as many bells as it
    # has edits, and all those bells were answered before.
    announced: dict[str, list[EditResult]] = defaultdict(list)
    address_of: dict[str, str] = {}
    post_of = {edit.id: edit.post_id for edit in applied.read}
    for result in applied.results:
        address = addresses.get(post_of[result.id])
        if address:
            announced[address_of.setdefault(answers.channel_of(address), address)].append(result)
    return applied, announced
