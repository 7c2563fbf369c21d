"""Who sends most: the edits of the last minute and those that wait, by workspace and key. So a flood has a name."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared.domain.ids import first_id
from shared.domain.waits import RUSH, Flood

LOOKED_AT = 5_000
"""Edits that are looked at: the newest ones, and as many that wait."""
WITHIN = timedelta(minutes=1)
BURST = 10.0
"""Seconds. One request with many edits is no pace: edits of less time count as if they took so long."""


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
    the edits that wait only LOOKED_AT were looked at; `looked_at`: how many those are. `accepted`: how many edits were
    accepted between `since` and `now`, by the database's clock.
    """

    senders: list[Sender]
    since: datetime
    now: datetime
    truncated: bool
    looked_at: int = 0
    accepted: int = 0

    @property
    def flood(self) -> Flood | None:
        """The key whose edits are most of those that wait, if those are many; else the key that sends most of all."""
        named = [self._flood(one) for one in self.senders if not one.moves]
        rushes = [one for one in named if one.a_second >= RUSH]
        return next((one for one in named if one.backlog), next(iter(rushes), None))

    def _flood(self, one: Sender) -> Flood:
        # A key that sends alone slows no other.
        most = one.accepted * 2 > self.accepted > one.accepted
        pace = one.accepted / max((self.now - self.since).total_seconds(), BURST) if most else 0.0
        return Flood(one.workspace_id, one.workspace, one.key, one.waiting, self.looked_at, pace)


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
        (SELECT count(*) FROM waiting), (SELECT count(*) FROM newest)
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
    waiting, accepted = rows[0][7:] if rows else (0, 0)
    found = [Sender(*row[:6]) for row in rows]
    return Senders(found, cut or since, now, waiting == LOOKED_AT, waiting, accepted)
