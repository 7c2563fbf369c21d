"""Webhook events that an operator has sent again: one, or all since a time, in steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from shared.store import acts as acts_store
from shared.store.acts import Act, Actor
from shared.store.webhook_log import MANY, EventStatus
from shared.store.webhooks import QUEUED_AT

LOOKED_AT: Final = 20_000
"""Events that one step of a resend looks at."""
TOGETHER: Final = 1000
"""Events that one step of a resend queues again at most."""

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
DEAD_LOOKED_AT: Final = 300_000
FIRST_LOOKED_AT: Final = 100_000
# Two commands that start together may be some seconds apart: what the first has sent again the second leaves alone,
# although it has been delivered since.
_CHOSEN = f"""(resent_at IS NULL OR resent_at <= :until - make_interval(secs => {RESENT_WITHIN}))
    AND finished_at >= :since AND finished_at <= :until
    AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
    AND (CAST(:status AS text) IS NULL OR status = :status)"""
# Two walks: the delivered ones by ix_webhook_events_delivered, or ix_webhook_events_taken of one workspace; the dead
# ones by ix_webhook_events_dead, or ix_webhook_events_open of one workspace.
_COUNT, _COUNT_OF_ONE = (
    text(f"""
    SELECT count(*) FILTER (WHERE status = 'delivered'), count(*) FILTER (WHERE status = 'dead') FROM (
        (SELECT status FROM webhook_events WHERE status = 'delivered'{also} AND {_CHOSEN} LIMIT :many)
        UNION ALL
        (SELECT status FROM (
            SELECT * FROM webhook_events WHERE status = 'dead'{also} ORDER BY {order} LIMIT {DEAD_LOOKED_AT}) dead
         WHERE {_CHOSEN} LIMIT :many)) chosen""")
    for also, order in (("", "seq DESC"), (" AND workspace_id = :workspace", f"{QUEUED_AT} DESC"))
)


def count(tx: Connection, choice: Choice) -> tuple[int, int]:
    """How many events a resend means: delivered and dead ones. A count of MANY means at least so many. Of dead ones the
    newest DEAD_LOOKED_AT are looked at.
    """
    statement = _COUNT if choice.workspace_id is None else _COUNT_OF_ONE
    delivered, dead = tx.execute(statement, choice.given() | {"many": MANY}).one()
    return delivered, dead


# Where a walk begins: no event that is meant has a smaller number. Of few events that is the smallest number of them.
# Of many a look at each would take too long: then the walk begins further down, and passes over what is not meant.
_FIRST, _FIRST_OF_ONE = (
    text(f"""
    WITH delivered AS MATERIALIZED (
        SELECT seq FROM webhook_events WHERE status = 'delivered'{also} AND finished_at >= :since
            AND finished_at <= :until LIMIT {FIRST_LOOKED_AT} + 1),
    dead AS MATERIALIZED (
        SELECT seq, finished_at FROM webhook_events WHERE status = 'dead' ORDER BY seq LIMIT {FIRST_LOOKED_AT} + 1)
    SELECT least(
        (SELECT CASE WHEN count(*) > {FIRST_LOOKED_AT} THEN (SELECT min(seq) FROM webhook_events) ELSE min(seq) END
         FROM delivered),
        (SELECT coalesce(min(seq) FILTER (WHERE finished_at >= :since),
            CASE WHEN count(*) > {FIRST_LOOKED_AT} THEN max(seq) END) FROM dead)) - 1""")
    for also in ("", " AND workspace_id = :workspace")
)
# In the order in which the events of a post must go: by the primary key, or the dead ones by their own index. What is
# not meant is passed over quickly.
_STEP, _STEP_OF_DEAD = (
    text(f"""
    WITH page AS MATERIALIZED (
        SELECT seq, status, workspace_id, finished_at, resent_at FROM webhook_events
        WHERE seq > :after{also} ORDER BY seq LIMIT :looked_at),
    chosen AS (
        SELECT seq FROM page WHERE status IN ('delivered', 'dead') AND {_CHOSEN} ORDER BY seq LIMIT :most)
    SELECT (SELECT max(seq) FROM page), (SELECT count(*) FROM page),
        ARRAY(SELECT seq FROM chosen ORDER BY seq)""")
    for also in ("", " AND status = 'dead'")
)


def resend_step(tx: Connection, choice: Choice, actor: Actor, after: int | None = None) -> Resent:
    """Queue the next of the chosen events again, in the order in which they were made; `after`: where the step before
    ended. Below the commit, ring for `post_ids`. What a twin has queued again is left alone.
    """
    if after is None:
        first = _FIRST if choice.workspace_id is None else _FIRST_OF_ONE
        after = tx.execute(first, choice.given()).scalar_one()
        if after is None:
            return Resent()
    step = _STEP_OF_DEAD if choice.status is EventStatus.DEAD else _STEP
    given = choice.given() | {"after": after, "looked_at": LOOKED_AT, "most": TOGETHER}
    last, looked, seqs = tx.execute(step, given).one()
    if len(seqs) == TOGETHER:
        return _resend(tx, seqs, choice.until, actor, seqs[-1])
    return _resend(tx, seqs, choice.until, actor, last if looked == LOOKED_AT else None)
