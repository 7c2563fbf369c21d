"""A batch of edits in as few trips to PostgreSQL as its order allows: a trip costs more than most statements."""

from collections.abc import Sequence

from sqlalchemy import Connection

from shared.posts import Post
from shared.store import counted, direct, edits, posts
from shared.store.edits import End, QueuedEdit
from shared.store.posts import Write


def take(tx: Connection, post_ids: Sequence[str], limit: int) -> tuple[dict[str, Post], list[QueuedEdit]]:
    """Lock those of the posts that nobody holds, and read the queue of those locked, at most `limit` edits of it.

    Two statements, one behind the other in one trip: the second sees what was committed while the first ran (SPEC 3.4).
    """
    found, waiting = direct.rows_together(tx, posts.lock(post_ids, "skip"), edits.queue(post_ids, limit))
    locked = posts.by_id(found)
    queue = [edit for edit in (QueuedEdit(*row) for row in waiting) if edit.post_id in locked]
    if len(queue) < len(waiting) == limit:
        # The long queue of a post that somebody holds must not hide its neighbours'.
        queue = edits.queued_edits(tx, locked, limit)
    return locked, queue


def settle(tx: Connection, writes: Sequence[Write], ends: Sequence[End]) -> None:
    """Write the posts and end their edits; StaleWriteError if a row was not as it was read."""
    if not (writes and ends):
        posts.write_posts(tx, writes)
        edits.finalize_edits(tx, ends)
        return
    wrote, ended = direct.changed_together(tx, posts.writing(writes), edits.finalizing(ends))
    counted(wrote, len(writes), "write_posts")
    counted(ended, len(ends), "finalize_edits")
