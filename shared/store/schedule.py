"""What is due soon, and what the broker forgot. The mark is a hint; the row is the schedule (docs/lifecycle.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text

from shared.store.hold_tables import FREE

OVERDUE = 2.0
RESEND_AFTER = 5.0

Kind = Literal["publish", "render"]


@dataclass(frozen=True, slots=True)
class Fence:
    """What a message is compared with before anything is locked. `queued`: an edit waits."""

    post_id: str
    status: str
    schedule_revision: int
    content_revision: int
    deleted: bool
    queued: bool


_FENCES = text("""
    SELECT p.id, p.status, p.schedule_revision, p.content_revision, p.deleted_at IS NOT NULL,
        EXISTS (SELECT FROM edits e WHERE e.post_id = p.id AND e.status = 'queued')
    FROM posts p WHERE p.id = ANY(:ids)""")


def fences(tx: Connection, post_ids: Iterable[str]) -> dict[str, Fence]:
    """The fences of posts, as they are now, unlocked."""
    return {row[0]: Fence(*row) for row in tx.execute(_FENCES, {"ids": list(post_ids)})}


# Within the horizon and not sent for this schedule revision yet, or overdue and sent long enough ago. The second look
# is made under the lock: an edit may have moved the post far away meanwhile, and nothing far away sits in Redis.
# now(), not clock_timestamp(): that is volatile, and no index can be searched for it.
_DUE = f"""status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL AND {FREE}
    AND scheduled_time <= now() + make_interval(secs => :horizon)
    AND (retry_at IS NULL OR retry_at <= now() + make_interval(secs => :horizon))
    AND (enqueued_revision IS DISTINCT FROM schedule_revision
        OR (greatest(scheduled_time, retry_at) < now() - make_interval(secs => :overdue)
            AND enqueued_at < now() - make_interval(secs => :again)))"""
_UNRENDERED = """status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
    AND (retry_at IS NULL OR retry_at <= now())
    AND (enqueued_at IS NULL OR enqueued_at < now() - make_interval(secs => :again))
    AND created_at < now() - make_interval(secs => 1)"""
_WANTED = {"publish": _DUE, "render": _UNRENDERED}

# The index knows the time alone: of the moment at which a page ended, all is read again, sorted by id and filtered.
_FIND = {
    kind: text(f"""
        SELECT scheduled_time, id FROM posts WHERE {wanted} AND (scheduled_time, id) > (:after_time, :after_id)
        ORDER BY scheduled_time, id LIMIT :limit""")
    for kind, wanted in _WANTED.items()
}
_MARK = {
    "publish": text(f"""
        UPDATE posts SET enqueued_revision = schedule_revision, enqueued_at = clock_timestamp()
        WHERE id = ANY(:ids) AND {_DUE}
        RETURNING id, schedule_revision, greatest(scheduled_time, retry_at),
            greatest(scheduled_time, retry_at) <= clock_timestamp()"""),
    "render": text(f"""
        UPDATE posts SET enqueued_revision = content_revision, enqueued_at = clock_timestamp()
        WHERE id = ANY(:ids) AND {_UNRENDERED}
        RETURNING id, content_revision, scheduled_time, true"""),
}


class Place(NamedTuple):
    """Where a post stands in the order of going out."""

    time: datetime
    post_id: str


FIRST = Place(datetime.min.replace(tzinfo=UTC), "")


@dataclass(frozen=True, slots=True)
class Marked:
    """A post whose message is to be sent now that the mark is set. `at`: when it goes live; None for at once."""

    post_id: str
    revision: int
    at: datetime | None


def _hints(kind: Kind, horizon: float) -> dict[str, float]:
    return {"again": RESEND_AFTER} | ({"overdue": OVERDUE, "horizon": horizon} if kind == "publish" else {})


def find_due(tx: Connection, kind: Kind, horizon: float, limit: int, after: Place = FIRST) -> list[Place]:
    """Posts to be sent for behind a place, soonest first, unlocked: lock them, then mark what is still so."""
    given = {"after_time": after.time, "after_id": after.post_id, "limit": limit}
    return [Place._make(row) for row in tx.execute(_FIND[kind], _hints(kind, horizon) | given)]


def mark_due(tx: Connection, kind: Kind, ids: Iterable[str], horizon: float) -> list[Marked]:
    """Mark locked posts as sent for, those that still are to be; send below the commit."""
    rows = tx.execute(_MARK[kind], _hints(kind, horizon) | {"ids": list(ids)})
    return [Marked(post_id, revision, None if due else at) for post_id, revision, at, due in rows]


_MARK_AGAIN = text("""
    UPDATE posts SET enqueued_revision = CASE status WHEN 'generated' THEN schedule_revision ELSE content_revision END,
        enqueued_at = clock_timestamp()
    WHERE id = ANY(:ids) AND claim_kind IS NULL""")


def mark_again(tx: Connection, ids: Iterable[str]) -> None:
    """A message for these locked posts goes round again: no other message is needed meanwhile."""
    tx.execute(_MARK_AGAIN, {"ids": list(ids)})


_UNMARK = text("""
    UPDATE posts SET enqueued_revision = NULL, enqueued_at = NULL
    WHERE id = ANY(:ids) AND status = 'generated' AND claim_kind IS NULL""")


def unmark(tx: Connection, ids: Iterable[str]) -> None:
    """The message of these locked posts came to nothing, since they are held. After the resume dispatch sends anew."""
    tx.execute(_UNMARK, {"ids": list(ids)})
