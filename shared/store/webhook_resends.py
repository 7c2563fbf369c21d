"""Webhook events that an operator has sent again: one, or all since a time, in steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from shared.store import acts as acts_store
from shared.store.acts import Act, Actor
from shared.store.webhook_log import MANY, EventStatus

LOOKED_AT: Final = 1000
"""Events that one step of a resend looks at, and at most queues again."""

# The guards: only what had ended, and had ended by then. An event that a twin has queued again is queued, or has ended
# later. The array is walked in its order, so that two at once wait for each other's rows in one order.
_RESEND = text("""
    UPDATE webhook_events SET status = 'queued', finished_at = NULL, resent_at = clock_timestamp()
    WHERE seq = ANY(ARRAY(
            SELECT s FROM unnest(CAST(:seqs AS bigint[])) s ORDER BY s))
        AND status IN ('delivered', 'dead') AND finished_at <= :until
    RETURNING id, post_id, workspace_id, old.status, old.finished_at, old.tries, old.message""")


@dataclass(frozen=True, slots=True)
class Resent:
    """One step of a resend: the events that it queued again, their posts to ring for, and the place to go on from; None
    at the end.
    """

    event_ids: tuple[str, ...] = ()
    post_ids: tuple[str, ...] = ()
    after: int | None = None


def _resend(tx: Connection, seqs: Iterable[int], until: datetime, actor: Actor, after: int | None) -> Resent:
    rows = list(tx.execute(_RESEND, {"seqs": sorted(seqs), "until": until}))
    acts = [
        Act(
            acts_store.RESEND, "webhook", event_id, workspace_id, status,
            {"finishedAt": finished_at.isoformat(), "tries": tries, "lastAnswer": message},
        )
        for event_id, _, workspace_id, status, finished_at, tries, message in rows
    ]  # fmt: skip
    acts_store.record(tx, actor, acts)
    return Resent(tuple(row[0] for row in rows), tuple(dict.fromkeys(row[1] for row in rows)), after)


_SEQS = text("SELECT seq FROM webhook_events WHERE id = ANY(:ids)")


def resend(tx: Connection, event_ids: Sequence[str], until: datetime, actor: Actor) -> Resent:
    """Queue these events again, those that were delivered or given up by `until`: the moment at which the operator saw
    them. Others are left as they are, so that a twin does nothing.

    An event keeps its id, its body and its place in its post's order.
    """
    return _resend(tx, tx.execute(_SEQS, {"ids": list(event_ids)}).scalars(), until, actor, None)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which events are sent again: those that were delivered or given up from `since` to `until`. `status`: only those;
    `workspace_id`: only its. Left out: what was sent again within the last minute before `until`.
    """

    since: datetime
    until: datetime
    status: EventStatus | None = None
    workspace_id: str | None = None

    def given(self) -> dict[str, Any]:
        """As the statements take it."""
        status = self.status.value if self.status else None
        return {"since": self.since, "until": self.until, "status": status, "workspace": self.workspace_id}


RESENT_WITHIN: Final = 60
# Two commands that start together may be some seconds apart: what the first has sent again the second leaves alone,
# although it has been delivered since.
_CHOSEN = f"""(resent_at IS NULL OR resent_at <= :until - make_interval(secs => {RESENT_WITHIN}))
    AND finished_at >= :since AND finished_at <= :until
    AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
    AND (CAST(:status AS text) IS NULL OR status = :status)"""
# Two walks: the delivered ones by ix_webhook_events_delivered, the dead ones by their own index.
_COUNT = text(f"""
    SELECT count(*) FILTER (WHERE status = 'delivered'), count(*) FILTER (WHERE status = 'dead') FROM (
        (SELECT status FROM webhook_events WHERE status = 'delivered' AND {_CHOSEN} LIMIT :many)
        UNION ALL
        (SELECT status FROM webhook_events WHERE status = 'dead' AND {_CHOSEN} LIMIT :many)) chosen""")


def count(tx: Connection, choice: Choice) -> tuple[int, int]:
    """How many events a resend means: delivered and dead ones. A count of MANY means at least so many."""
    delivered, dead = tx.execute(_COUNT, choice.given() | {"many": MANY}).one()
    return delivered, dead


# seq + 0: else the planner walks the primary key from its start, past a week of events.
_FIRST = text(f"""
    SELECT least(
        (SELECT min(seq + 0) FROM webhook_events WHERE status = 'delivered' AND {_CHOSEN}),
        (SELECT min(seq + 0) FROM webhook_events WHERE status = 'dead' AND {_CHOSEN})) - 1""")
# In the order in which the events of a post must go: by the primary key, or the dead ones by their own index.
_STEP, _STEP_OF_DEAD = (
    text(f"""
    WITH page AS (
        SELECT seq, status, workspace_id, finished_at, resent_at FROM webhook_events
        WHERE seq > :after{also} ORDER BY seq LIMIT :looked_at)
    SELECT max(seq), count(*),
        coalesce(array_agg(seq) FILTER (WHERE status IN ('delivered', 'dead') AND {_CHOSEN}), '{{}}')
    FROM page""")
    for also in ("", " AND status = 'dead'")
)


def resend_step(tx: Connection, choice: Choice, actor: Actor, after: int | None = None) -> Resent:
    """Queue the next of the chosen events again, in the order in which they were made; `after`: where the step before
    ended. Below the commit, ring for `post_ids`. What a twin has queued again is left alone.
    """
    if after is None:
        after = tx.execute(_FIRST, choice.given()).scalar_one()
        if after is None:
            return Resent()
    step = _STEP_OF_DEAD if choice.status is EventStatus.DEAD else _STEP
    last, looked, seqs = tx.execute(step, choice.given() | {"after": after, "looked_at": LOOKED_AT}).one()
    return _resend(tx, seqs, choice.until, actor, last if looked == LOOKED_AT else None)
