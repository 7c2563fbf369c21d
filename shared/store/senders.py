"""Who sends most: the edits of the last minute and those that wait, by workspace and key. So a flood has a name."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared.domain.ids import first_id
from shared.domain.waits import FLOOD, Flood

LOOKED_AT = 5_000
"""Edits that are looked at: the newest ones, and as many that wait."""
WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Sender:
    """A key of a workspace, or a bulk job's maker. `accepted`: its edits among those looked at; `waiting`: those of its
    edits that wait, among those looked at.
    """

    workspace_id: str
    workspace: str
    key: str
    moves: bool
    accepted: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Senders:
    """The busiest first. `since`: when the oldest edit that was looked at was accepted, or WITHIN ago. `truncated`: of
    the edits that wait only LOOKED_AT were looked at; `looked_at`: how many those are.
    """

    senders: list[Sender]
    since: datetime
    truncated: bool
    looked_at: int = 0

    @property
    def flood(self) -> Flood | None:
        """The key whose edits are most of those that wait, if those are many."""
        for one in self.senders:
            if one.waiting >= FLOOD and one.waiting * 2 > self.looked_at:
                return Flood(one.workspace_id, one.workspace, one.key, one.waiting, self.looked_at)
        return None


# The newest by the primary key: ids sort by time. Those that wait by ix_edits_queue, which is in the order of posts.
_SENDERS = text("""
    WITH newest AS MATERIALIZED (
        SELECT workspace_id, requested_by, reschedule_id IS NOT NULL AS moves, created_at FROM edits
        WHERE id >= :floor ORDER BY id DESC LIMIT :looked_at),
    waiting AS MATERIALIZED (
        SELECT workspace_id, requested_by, reschedule_id IS NOT NULL AS moves FROM edits
        WHERE status = 'queued' LIMIT :looked_at)
    SELECT s.workspace_id, coalesce(w.name, s.workspace_id), s.requested_by, s.moves, s.accepted, s.waiting,
        (SELECT CASE WHEN count(*) = :looked_at THEN min(created_at) END FROM newest),
        (SELECT count(*) FROM waiting)
    FROM (
        SELECT workspace_id, requested_by, moves, CAST(sum(accepted) AS integer) AS accepted,
            CAST(sum(waiting) AS integer) AS waiting
        FROM (SELECT workspace_id, requested_by, moves, 1 AS accepted, 0 AS waiting FROM newest
              UNION ALL SELECT workspace_id, requested_by, moves, 0, 1 FROM waiting) each_one
        GROUP BY workspace_id, requested_by, moves) s
    LEFT JOIN workspaces w ON w.id = s.workspace_id
    ORDER BY s.accepted + s.waiting DESC, s.workspace_id, s.requested_by LIMIT :limit""")


def busiest(tx: Connection, now: datetime, limit: int = 5) -> Senders:
    """Who has sent most within WITHIN, and whose edits wait. `now`: the database's clock."""
    since = now - WITHIN
    given = {"floor": first_id("edit", since.timestamp()), "looked_at": LOOKED_AT, "limit": limit}
    rows = tx.execute(_SENDERS, given).all()
    cut: datetime | None = rows[0][6] if rows else None
    waiting: int = rows[0][7] if rows else 0
    return Senders([Sender(*row[:6]) for row in rows], cut or since, waiting == LOOKED_AT, waiting)
