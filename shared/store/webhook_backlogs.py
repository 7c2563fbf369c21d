"""The webhook events of each workspace as operators see them: what waits, since when, what is dead, what was answered.

Each statement is bounded, however many events, tries and workspaces there are.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from shared.domain.plurals import MANY
from shared.store import posts as posts_store
from shared.store.webhook_log import SLOW, Answer, answer_of, took_of
from shared.store.webhooks import QUEUED_AT

WORKSPACES: Final = 200
COUNTED: Final = 100_000
"""Events that are counted for all workspaces of a list together, of each status."""
COUNTED_AT_LEAST: Final = 100
"""Of each workspace so many are counted, however many workspaces there are."""
TYPICAL: Final = 20
"""The latest calls of which the typical one is told."""
LATE_AFTER: Final = timedelta(minutes=10)
"""An event that waits for longer is shown in red, and is a finding of `redraft doctor`."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """One workspace's events. `oldest`: when the one that waits longest was made, or queued again. `most`: a count of
    so many means at least so many. `typical`: how long the receiver's latest calls took, in the middle.
    """

    workspace_id: str
    name: str
    queued: int
    oldest: datetime | None
    dead: int
    last: Answer | None
    most: int = MANY
    typical: timedelta | None = None

    def counted(self, number: int) -> str:
        """Such as `1,204`, or `500+` where counting stopped."""
        return f"{number:,}" + ("+" if number >= self.most else "")

    @property
    def slow(self) -> bool:
        return self.typical is not None and self.typical >= SLOW


# For each workspace some short walks, in the order of their index, so that no plan reads the whole table:
# ix_webhook_events_open and ix_webhook_tries_latest.
_WORKSPACES = text(f"""
    SELECT w.id, w.name, oldest.at, last.at, last.outcome, last.status, last.message, last.took_ms
    FROM workspaces w
    LEFT JOIN LATERAL (
        SELECT {QUEUED_AT} AS at FROM webhook_events WHERE workspace_id = w.id AND status = 'queued'
        ORDER BY {QUEUED_AT} LIMIT 1) oldest ON true
    LEFT JOIN LATERAL (
        SELECT {QUEUED_AT} AS at FROM webhook_events WHERE workspace_id = w.id AND status = 'dead'
        ORDER BY {QUEUED_AT} LIMIT 1) dead ON true
    LEFT JOIN LATERAL (
        SELECT at, outcome, status, message, took_ms FROM webhook_tries t WHERE t.workspace_id = w.id
        ORDER BY at DESC LIMIT 1) last ON true
    WHERE oldest.at IS NOT NULL OR dead.at IS NOT NULL OR last.at IS NOT NULL
    ORDER BY oldest.at NULLS LAST, dead.at NULLS LAST, w.name LIMIT :limit""")
_COUNTS = text(f"""
    SELECT w.id, queued.count, dead.count, typical.took_ms
    FROM unnest(CAST(:ids AS text[])) w(id)
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM webhook_events WHERE workspace_id = w.id AND status = 'queued'
        ORDER BY {QUEUED_AT} LIMIT :many) counted) queued
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM webhook_events WHERE workspace_id = w.id AND status = 'dead'
        ORDER BY {QUEUED_AT} LIMIT :many) counted) dead
    CROSS JOIN LATERAL (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY took_ms) AS took_ms FROM (
            SELECT took_ms FROM webhook_tries t WHERE t.workspace_id = w.id ORDER BY at DESC LIMIT :typical) latest
    ) typical""")


def backlogs(tx: Connection, limit: int = WORKSPACES) -> list[Backlog]:
    """Workspaces that have events, the one that waits longest first."""
    rows = tx.execute(_WORKSPACES, {"limit": limit}).all()
    if not rows:
        return []
    most = max(COUNTED_AT_LEAST, min(MANY, COUNTED // len(rows)))
    given = {"ids": [row.id for row in rows], "many": most, "typical": TYPICAL}
    counts = {row[0]: row[1:] for row in tx.execute(_COUNTS, given)}
    found = []
    for workspace_id, name, oldest, *last in rows:
        queued, dead, took_ms = counts[workspace_id]
        found.append(Backlog(workspace_id, name, queued, oldest, dead, answer_of(*last), most, took_of(took_ms)))
    return found


@dataclass(frozen=True, slots=True)
class Overall:
    """All backlogs together: what `redraft doctor` judges. Counts end above MANY. `typical`: of the workspace
    that waits longest.
    """

    now: datetime
    queued: int
    oldest: datetime | None
    dead: int
    last: Answer | None
    typical: timedelta | None = None


# In the order of an index each: ix_webhook_events_queue, ix_webhook_events_dead.
_TOTALS = text("""
    SELECT (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'queued'
            ORDER BY post_id, seq LIMIT :many) queued),
        (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'dead'
            ORDER BY seq DESC LIMIT :many) dead)""")


def overall(tx: Connection) -> Overall:
    """The sum over all workspaces, the latest answer to any of them, and how long the calls take."""
    queued, dead = tx.execute(_TOTALS, {"many": MANY + 1}).one()
    rows = tx.execute(_WORKSPACES, {"limit": 1_000_000}).all()
    answers = (answer_of(*row[3:]) for row in rows)
    last = max((one for one in answers if one is not None), key=lambda one: one.at, default=None)
    first = rows[0] if rows else None
    typical = None
    if first is not None and first[2] is not None:
        given = {"ids": [first.id], "many": 0, "typical": TYPICAL}
        typical = took_of(tx.execute(_COUNTS, given).one().took_ms)
    return Overall(posts_store.clock(tx), queued, first[2] if first else None, dead, last, typical)
