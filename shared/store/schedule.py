"""What is due soon, and what the broker forgot. The mark is a hint; the row is the schedule (SPEC 6)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

OVERDUE = 2.0
AGAIN = 5.0

# Due within the horizon and not sent for this schedule revision yet, or overdue and sent long enough ago.
_UNSENT = """(enqueued_revision IS DISTINCT FROM schedule_revision
        OR (greatest(scheduled_time, retry_at) < clock_timestamp() - make_interval(secs => :overdue)
            AND enqueued_at < clock_timestamp() - make_interval(secs => :again)))"""
_WAITING = "status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL"
_UNRENDERED = """status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
    AND (retry_at IS NULL OR retry_at <= clock_timestamp())
    AND (enqueued_at IS NULL OR enqueued_at < clock_timestamp() - make_interval(secs => :again))
    AND created_at < clock_timestamp() - make_interval(secs => 1)"""

_DUE = text(f"""
    SELECT id FROM posts WHERE {_WAITING} AND {_UNSENT}
        AND scheduled_time <= clock_timestamp() + make_interval(secs => :horizon)
        AND (retry_at IS NULL OR retry_at <= clock_timestamp() + make_interval(secs => :horizon))
    ORDER BY scheduled_time LIMIT :limit""")
_MARK_DUE = text(f"""
    UPDATE posts SET enqueued_revision = schedule_revision, enqueued_at = clock_timestamp()
    WHERE id = ANY(:ids) AND {_WAITING} AND {_UNSENT}
    RETURNING id, schedule_revision, greatest(scheduled_time, retry_at),
        greatest(scheduled_time, retry_at) <= clock_timestamp()""")
_UNRENDERED_POSTS = text(f"SELECT id FROM posts WHERE {_UNRENDERED} ORDER BY scheduled_time LIMIT :limit")
_MARK_UNRENDERED = text(f"""
    UPDATE posts SET enqueued_revision = content_revision, enqueued_at = clock_timestamp()
    WHERE id = ANY(:ids) AND {_UNRENDERED}
    RETURNING id, content_revision, scheduled_time, true""")

_FIND = {"publish": _DUE, "render": _UNRENDERED_POSTS}
_MARK = {"publish": _MARK_DUE, "render": _MARK_UNRENDERED}

Kind = Literal["publish", "render"]


@dataclass(frozen=True, slots=True)
class Marked:
    """A post whose message is to be sent now that the mark is set. `at`: when it goes live; None for at once."""

    post_id: str
    revision: int
    at: datetime | None


def _hints(kind: Kind, horizon: float) -> dict[str, float]:
    return {"overdue": OVERDUE, "again": AGAIN, "horizon": horizon} if kind == "publish" else {"again": AGAIN}


def find_due(tx: Connection, kind: Kind, horizon: float, limit: int) -> list[str]:
    """Posts to be sent for, soonest first, unlocked: lock them, then mark what is still so."""
    return list(tx.execute(_FIND[kind], _hints(kind, horizon) | {"limit": limit}).scalars())


def mark_due(tx: Connection, kind: Kind, ids: Iterable[str], horizon: float) -> list[Marked]:
    """Mark locked posts as sent for, those that still are to be; send below the commit."""
    hints = _hints(kind, horizon)
    hints.pop("horizon", None)
    rows = tx.execute(_MARK[kind], hints | {"ids": list(ids)})
    return [Marked(post_id, revision, None if due else at) for post_id, revision, at, due in rows]
