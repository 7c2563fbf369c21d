"""Posts that should have gone out, and why a post has not: its row, its tries and its lock, read for
shared/domain/reasons.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from shared.domain import reasons
from shared.domain.edits import EditPatch
from shared.domain.fields import UNSET
from shared.domain.holds import MISSED
from shared.domain.lifecycle import ClaimKind
from shared.domain.reasons import LastTry, Limits, Reason, Row
from shared.domain.service_answers import Past
from shared.domain.waits import UNKNOWN, Broker, Waits
from shared.settings import settings
from shared.store import holds as holds_store
from shared.store import locks
from shared.store import publish_attempts as attempts_store
from shared.store.hold_tables import DUE_AT
from shared.store.overview import CLAIMED_LATE, DUE_LATE, LATE_AFTER, UNRENDERED_LATE

EDITS = 100
"""Edits that wait for one post, of which so many are counted."""

_ROWS = text(f"""
    SELECT clock_timestamp(), p.id, p.status, p.scheduled_time, p.deleted_at IS NOT NULL, p.claim_kind, p.claim_token,
        p.claim_expires_at, p.retry_at, p.enqueued_at, p.render_tries, p.render_waits_since IS NOT NULL,
        p.failure_reason, p.failure_class, p.failure_message, p.render_outcome, p.render_message, e.count, e.changes,
        l.try_number, l.claim_token, l.started_at, l.outcome, l.message, l.forgiven
    FROM posts p LEFT JOIN LATERAL (
        SELECT try_number, claim_token, started_at, outcome, message, forgiven FROM publish_attempts
        WHERE post_id = p.id ORDER BY id DESC LIMIT 1) l ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, (array_agg(changes ORDER BY seq DESC) FILTER (WHERE changes ? 'scheduledTime'))[1]
            AS changes
        FROM (SELECT seq, changes FROM edits WHERE post_id = p.id AND status = 'queued' ORDER BY seq LIMIT {EDITS}) q) e
    WHERE p.id = ANY(:ids)""")
_OF_ROW = len(fields(Row))


def why(tx: Connection, post_ids: Sequence[str], broker: Broker = UNKNOWN) -> dict[str, Reason]:
    """Why each of these posts is where it is (ix_publish_attempts_post, ix_edits_queue). Unknown ids are left out.
    `broker`: what Redis said.
    """
    rows = tx.execute(_ROWS, {"ids": list(post_ids)}).all()
    past, holds = attempts_store.histories(tx, post_ids), holds_store.effective(tx, post_ids)
    config = settings()
    limits = Limits(config.tries_never_started, config.tries_unknown, config.service_timeout)
    around = Waits(locks.of_posts(tx, post_ids), broker)
    found: dict[str, Reason] = {}
    for now, *values in rows:
        *own, changes = values[:_OF_ROW]
        row, last = Row(*[*own, _instant(changes)]), values[_OF_ROW:]
        history = past.get(row.id)
        latest = LastTry(*last) if last[0] is not None else None
        hold = holds.get(row.id)
        if hold is not None and row.claim != ClaimKind.PUBLISH:
            found[row.id] = reasons.held(row, hold, now)
        else:
            past_tries = history.past if history else Past()
            found[row.id] = reasons.of(row, latest, past_tries, now, limits, found=around)
    return found


def _instant(changes: dict[str, Any] | None) -> datetime | None:
    """The time that an edit asks for."""
    instant = EditPatch.from_changes(changes).instant if changes else UNSET
    return None if instant is UNSET else instant


@dataclass(frozen=True, slots=True)
class RenderTry:
    """How the latest render of a post ended, while the post waits for its next one or has failed. `tries`: how many
    of its tries are used up.
    """

    outcome: str
    message: str | None
    answered_at: datetime
    tries: int


_RENDER_TRY = text("""
    SELECT render_outcome, render_message, render_answered_at, render_tries FROM posts
    WHERE id = :id AND render_outcome IS NOT NULL""")


def last_render(tx: Connection, post_id: str) -> RenderTry | None:
    """What the renderer last answered for a post (the primary key); None where there was no answer, or a render."""
    row = tx.execute(_RENDER_TRY, {"id": post_id}).one_or_none()
    return RenderTry(*row) if row else None


@dataclass(frozen=True, slots=True)
class LatePost:
    """A post that should have gone out, and why it has not. `now`: the database's clock."""

    id: str
    workspace_id: str
    status: str
    scheduled_time: datetime
    timezone: str | None
    due_at: datetime
    now: datetime
    reason: Reason

    @property
    def late_by(self) -> timedelta:
        """Since when it should have gone out: its time, or the release from a hold that came after its time."""
        return self.now - self.due_at


_COLUMNS = f"SELECT id, workspace_id, status, scheduled_time, timezone, {DUE_AT} AS due_at, clock_timestamp() AS now"
_LATE = text(f"""
    SELECT * FROM (
        ({_COLUMNS} {DUE_LATE} ORDER BY scheduled_time LIMIT :limit)
        UNION ALL ({_COLUMNS} {UNRENDERED_LATE} ORDER BY scheduled_time LIMIT :limit)
        UNION ALL ({_COLUMNS} {CLAIMED_LATE} ORDER BY scheduled_time LIMIT :limit)
    ) late ORDER BY scheduled_time LIMIT :limit""")


def late_posts(tx: Connection, limit: int, late_after: float = LATE_AFTER, broker: Broker = UNKNOWN) -> list[LatePost]:
    """Posts that should have gone out, the longest late first (ix_posts_free, ix_posts_unrendered, ix_posts_claims)."""
    rows = tx.execute(_LATE, {"limit": limit, "late": late_after}).all()
    said = why(tx, [row.id for row in rows], broker)
    # One that went out, failed, was deleted or was held between the two statements is late no more.
    return [
        LatePost(
            row.id, row.workspace_id, row.status, row.scheduled_time, row.timezone, row.due_at, row.now, said[row.id]
        )
        for row in rows
        if said[row.id].code not in {"posted", "failed", "deleted", "held", MISSED}
    ]
