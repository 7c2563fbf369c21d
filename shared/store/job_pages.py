"""What operators see and do of one bulk job beyond its row of counters."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.store import acts, reschedules
from shared.store.acts import Act, Actor, Recorded


@dataclass(frozen=True, slots=True)
class Details:
    """`filter`: which posts, as a client sends it; None where items or another job name them. `acts`: newest first."""

    filter: dict[str, Any] | None
    api_key_id: str
    reverted_by: str | None
    acts: list[Recorded]


_DETAILS = text("""
    SELECT r.filter, r.api_key_id, (SELECT b.id FROM reschedules b WHERE b.reverts = r.id)
    FROM reschedules r WHERE r.id = :id""")


def details(tx: Connection, job_id: str) -> Details | None:
    """One job of any workspace."""
    row = tx.execute(_DETAILS, {"id": job_id}).one_or_none()
    if row is None:
        return None
    meant, key, reverted_by = row
    return Details(meant, key, reverted_by, acts.of(tx, job_id, 20))


_REASONS = text("""
    SELECT o.entry ->> 1, o.entry ->> 4, count(*), min(c.post_ids[CAST(o.entry ->> 0 AS integer) + 1])
    FROM reschedule_chunks c, jsonb_array_elements(c.outcomes) AS o(entry)
    WHERE c.reschedule_id = :job AND o.entry ->> 1 IN ('skipped', 'failed')
    GROUP BY 1, 2 ORDER BY 3 DESC, 2""")


@dataclass(frozen=True, slots=True)
class NotMoved:
    """Posts of a job that were not moved for one reason: how many, and the first of them."""

    outcome: str
    reason: str | None
    count: int
    example: str


def not_moved(tx: Connection, job_id: str) -> list[NotMoved]:
    """Why posts of a job were not moved, the most frequent reason first (pk_reschedule_chunks)."""
    return [NotMoved(*row) for row in tx.execute(_REASONS, {"job": job_id})]


_WARNED = text("""
    SELECT coalesce(sum(cardinality(warned)), 0), min(post_ids[warned[1] + 1]) FROM reschedule_chunks
    WHERE reschedule_id = :job AND warned <> '{}'""")


@dataclass(frozen=True, slots=True)
class Warned:
    """Moved posts that share their minute with another post of their account: how many, and one of them."""

    count: int
    example: str | None


def warned(tx: Connection, job_id: str) -> Warned:
    """The warnings of a job that is done; none before (pk_reschedule_chunks)."""
    return Warned(*tx.execute(_WARNED, {"job": job_id}).one())


def cancel(tx: Connection, actor: Actor, workspace_id: str, job_id: str, status: str) -> bool:
    """End a live job before its next chunk. `status`: the one to keep with the act. False for a job that has ended."""
    if reschedules.cancel(tx, workspace_id, job_id) is None:
        return False
    acts.record(tx, actor, [Act(acts.CANCEL, "job", job_id, workspace_id, status, {})])
    return True
