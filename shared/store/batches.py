"""A batch of edits in as few trips to PostgreSQL as its order allows: a trip costs more than most statements."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from shared.domain.posts import Post
from shared.domain.queued_edits import EditResult
from shared.store import edits, posts, raw_statements
from shared.store.edits import Queue
from shared.store.posts import Write

LARGE_POSTS = 50
"""The most posts with a large content (35 URLs are 72 kB) that one batch reads."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Locked posts, the part of their queues that was read, and posts left for another batch."""

    locked: dict[str, Post]
    queue: Queue
    left: list[str]


def take(tx: Connection, post_ids: Sequence[str], limit: int, most: int, patience: float | None = None) -> Taken:
    """Lock those of the posts that no other session has locked, and read their queue: at most `limit` edits and about
    `most` bytes. `patience`: seconds for which later writes of this transaction wait for a locked row, at most.

    Two statements, one behind the other in one trip: the second sees what was committed while the first ran.
    """
    asked = [posts.lock_light(post_ids), edits.queue(post_ids, limit, most)]
    if patience is not None:
        asked.append(posts.waiting_at_most(patience))
    found, rows, *_ = raw_statements.rows_together(tx, *asked)
    locked, waiting = posts.by_id(found), edits.queue_of(rows, limit)
    large = {row[0] for row in found if row[posts.CONTENT] is None}
    left = _read_large(tx, locked, large, waiting) if large else []
    queue = waiting.of(locked)
    if waiting.more and len(queue.edits) < len(waiting.edits):
        # The long queue of a post that is locked elsewhere must not hide the queues of the others.
        queue = edits.queued_edits(tx, locked, limit, most)
    return Taken(locked, queue, left)


def _read_large(tx: Connection, locked: dict[str, Post], large: set[str], waiting: Queue) -> list[str]:
    """Read the large contents of posts that an edit waits for; those above LARGE_POSTS are removed from `locked`."""
    wanted = [post_id for post_id in dict.fromkeys(edit.post_id for edit in waiting.edits) if post_id in large]
    read = posts.contents(tx, wanted[:LARGE_POSTS])
    for post_id, content in read.items():
        post = locked[post_id]
        post.facts = replace(post.facts, content_url=content)
    for post_id in large - read.keys():
        del locked[post_id]
    # Those of whose queue nothing was read yet may have one.
    return sorted(large - read.keys()) if waiting.more else wanted[LARGE_POSTS:]


def finalize(tx: Connection, writes: Sequence[Write], results: Sequence[EditResult], *, last: bool = False) -> None:
    """Write the posts and the results of their edits; StaleWriteError if a row is not as it was read.

    `last`: nothing else is run in this transaction. Then the writes travel with its COMMIT, and fail there.
    """
    due = [posts.writing(writes)] if writes else []
    due += [edits.finalizing(results)] if results else []
    if last:
        raw_statements.at_commit(tx, *due)
    elif due:
        raw_statements.rows_together(tx, *due)
