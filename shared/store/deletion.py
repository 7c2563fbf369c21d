"""Deleting posts: the row stays, hidden. Its queued edits are rejected in the same transaction (docs/api.md)."""

from collections.abc import Sequence
from datetime import datetime

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.lifecycle import EditStatus
from shared.domain.posts import Post
from shared.domain.queued_edits import EditResult
from shared.store import counted

# Every claim and every mark asks for a post that is not deleted, so that nothing that is under way can take it up.
_HIDE = text("""
    UPDATE posts p SET deleted_at = now(), enqueued_revision = NULL, enqueued_at = NULL, retry_at = NULL
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, from_status text, from_revision bigint)
    WHERE p.id = r.id AND p.status = r.from_status AND p.revision = r.from_revision
        AND p.deleted_at IS NULL AND p.claim_kind IS NULL
    RETURNING p.deleted_at""")
_REJECT = text("""
    UPDATE edits e SET status = 'rejected', revision = p.revision, error_code = 'not_found',
        error_message = 'Post ' || e.post_id || ' not found', finalized_at = clock_timestamp()
    FROM posts p
    WHERE p.id = e.post_id AND e.post_id = ANY(:ids) AND e.status = 'queued'
    RETURNING e.id, e.post_id, e.seq, e.revision, e.error_code, e.error_message""")


def hide(tx: Connection, posts: Sequence[Post]) -> datetime:
    """Delete locked, unclaimed posts (at least one); when that was. StaleWriteError if a row was not as locked."""
    rows = [
        {"id": post.facts.id, "from_status": post.facts.status, "from_revision": post.facts.revision} for post in posts
    ]
    times = list(tx.execute(_HIDE, {"rows": to_json(rows).decode()}).scalars())
    counted(len(times), len(posts), "hide")
    deleted_at: datetime = times[0]
    return deleted_at


def reject_queue(tx: Connection, posts: Sequence[Post]) -> list[tuple[str, EditResult]]:
    """Reject all queued edits of locked posts: (post id, result), in the order in which they were accepted."""
    rejected = tx.execute(_REJECT, {"ids": [post.facts.id for post in posts]})
    return [
        (row.post_id, EditResult(row.id, EditStatus.REJECTED, row.revision, error_code=row.error_code,
                          error_message=row.error_message))
        for row in sorted(rejected, key=lambda row: row.seq)
    ]  # fmt: skip
