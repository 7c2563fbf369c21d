"""What operators read of webhook events, of all workspaces: backlogs, lists, each event's tries. Each is bounded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text

from shared.domain.service_answers import Outcome
from shared.store import acts as acts_store
from shared.store import posts as posts_store
from shared.store.webhooks import QUEUED_AT

MANY: Final = 10_000
"""Counts stop there: a count of MANY means at least so many."""
WORKSPACES: Final = 200
TRIES: Final = 200
LATE_AFTER: Final = timedelta(minutes=10)
"""An event that waits for longer is shown in red, and is a finding of `redraft doctor`."""


class EventStatus(StrEnum):
    """Whether an event waits for its receiver, was taken, or was given up."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one try at an event ended. `status`: the HTTP status, None where there was no answer."""

    at: datetime
    outcome: Outcome
    status: int | None
    message: str | None

    @property
    def words(self) -> str:
        """`taken (204)`, `500: the service answered 500`, `timed out`."""
        if self.outcome is Outcome.DONE:
            return f"taken ({self.status})" if self.status else "taken"
        said = self.message or self.outcome.value.replace("_", " ")
        return said if self.status is None or str(self.status) in said else f"{self.status}: {said}"


def _answer(at: datetime | None, outcome: str | None, status: int | None, message: str | None) -> Answer | None:
    return None if at is None or outcome is None else Answer(at, Outcome(outcome), status, message)


@dataclass(frozen=True, slots=True)
class Backlog:
    """One workspace's events. `oldest`: when the one that waits longest was made, or queued again."""

    workspace_id: str
    name: str
    queued: int
    oldest: datetime | None
    dead: int
    last: Answer | None


# For each workspace some short walks, in the order of their index, so that no plan reads the whole table:
# ix_webhook_events_open and ix_webhook_tries_latest.
_BACKLOGS = text(f"""
    SELECT w.id, w.name, queued.count, oldest.at, dead.count, last.at, last.outcome, last.status, last.message
    FROM workspaces w
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM webhook_events WHERE workspace_id = w.id AND status = 'queued'
        ORDER BY {QUEUED_AT} LIMIT :many) counted) queued
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM webhook_events WHERE workspace_id = w.id AND status = 'dead'
        ORDER BY {QUEUED_AT} LIMIT :many) counted) dead
    LEFT JOIN LATERAL (
        SELECT {QUEUED_AT} AS at FROM webhook_events WHERE workspace_id = w.id AND status = 'queued'
        ORDER BY {QUEUED_AT} LIMIT 1) oldest ON true
    LEFT JOIN LATERAL (
        SELECT at, outcome, status, message FROM webhook_tries t WHERE t.workspace_id = w.id
        ORDER BY at DESC LIMIT 1) last ON true
    WHERE queued.count > 0 OR dead.count > 0 OR last.at IS NOT NULL
    ORDER BY oldest.at NULLS LAST, dead.count DESC, w.name LIMIT :limit""")


def backlogs(tx: Connection, limit: int = WORKSPACES) -> list[Backlog]:
    """Workspaces that have events, the one that waits longest first."""
    return [
        Backlog(workspace_id, name, queued, oldest, dead, _answer(*last))
        for workspace_id, name, queued, oldest, dead, *last in tx.execute(_BACKLOGS, {"many": MANY, "limit": limit})
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """All backlogs together: what `redraft doctor` judges. Counts of MANY mean at least so many."""

    now: datetime
    queued: int
    oldest: datetime | None
    dead: int
    last: Answer | None


def standing(tx: Connection) -> Standing:
    """The sum over all workspaces, and the latest answer to any of them."""
    found = backlogs(tx, limit=1_000_000)
    return total(found, posts_store.clock(tx))


def total(found: Sequence[Backlog], now: datetime) -> Standing:
    """Backlogs added up."""
    return Standing(
        now,
        sum(one.queued for one in found),
        min((one.oldest for one in found if one.oldest), default=None),
        sum(one.dead for one in found),
        max((one.last for one in found if one.last), key=lambda answer: answer.at, default=None),
    )


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event with its latest answer. `queued_at`: when it was made, or queued again. `next_at`: of a queued one, when
    its lease ends or its next try comes. `now`: the database's clock.
    """

    seq: int
    id: str
    workspace_id: str
    post_id: str
    type: str
    status: EventStatus
    created_at: datetime
    queued_at: datetime
    finished_at: datetime | None
    tries: int
    next_at: datetime | None
    last: Answer | None
    now: datetime

    @property
    def place(self) -> str:
        """Where it stands in its list: the next page begins behind it."""
        at = self.finished_at if self.status is EventStatus.DELIVERED else self.queued_at
        return f"{(at or self.queued_at).isoformat()}~{self.seq}"


_E_QUEUED_AT = "coalesce(e.resent_at, e.created_at)"
_COLUMNS = f"""e.seq, e.id, e.workspace_id, e.post_id, e.type, e.status, e.created_at, {_E_QUEUED_AT}, e.finished_at,
    e.tries, e.lease_expires_at, last.at, last.outcome, last.status, last.message, clock_timestamp()"""
_LAST = """LEFT JOIN LATERAL (
        SELECT at, outcome, status, message FROM webhook_tries t WHERE t.event_seq = e.seq
        ORDER BY number DESC LIMIT 1) last ON true"""


def _listed(row: Sequence[Any]) -> ListedEvent:
    seq, event_id, workspace_id, post_id, kind, status, created_at, queued_at, finished_at, tries, next_at, *rest = row
    *last, now = rest
    return ListedEvent(
        seq, event_id, workspace_id, post_id, kind, EventStatus(status), created_at, queued_at, finished_at, tries,
        next_at, _answer(*last), now,
    )  # fmt: skip


def _open(order: str, beyond: str) -> str:
    """Of each workspace the first of the list (ix_webhook_events_open), and of those the first of all."""
    return f"""
        SELECT {_COLUMNS} FROM workspaces w
        CROSS JOIN LATERAL (
            SELECT * FROM webhook_events WHERE workspace_id = w.id AND status = :status
                AND ({QUEUED_AT}, seq) {beyond} (CAST(:at AS timestamptz), CAST(:seq AS bigint))
            ORDER BY {QUEUED_AT} {order}, seq {order} LIMIT :limit) e
        {_LAST}
        WHERE CAST(:workspace AS text) IS NULL OR w.id = :workspace
        ORDER BY {_E_QUEUED_AT} {order}, e.seq {order} LIMIT :limit"""


_LISTS: Final = {
    EventStatus.QUEUED: text(_open("ASC", ">")),
    EventStatus.DEAD: text(_open("DESC", "<")),
    # ix_webhook_events_delivered
    EventStatus.DELIVERED: text(f"""
        SELECT {_COLUMNS} FROM (
            SELECT * FROM webhook_events WHERE status = 'delivered' AND :status = 'delivered'
                AND (finished_at, seq) < (CAST(:at AS timestamptz), CAST(:seq AS bigint))
                AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
            ORDER BY finished_at DESC, seq DESC LIMIT :limit) e
        {_LAST}
        ORDER BY e.finished_at DESC, e.seq DESC"""),
}


def events(
    tx: Connection, status: EventStatus, *, workspace_id: str | None = None, after: str | None = None, limit: int = 50
) -> list[ListedEvent]:
    """Events of one status: queued ones the longest waiting first, others the newest first. `after`: the `place` of the
    last one of the page before; any other text begins at the start.
    """
    at, _, seq = (after or "").partition("~")
    try:
        # As Python reads it, which takes more forms than PostgreSQL.
        place: tuple[str, int] = (datetime.fromisoformat(at).isoformat(), min(max(int(seq), 0), 2**63 - 1))
    except ValueError:
        place = ("-infinity", 0) if status is EventStatus.QUEUED else ("infinity", 0)
    given = {"status": status.value, "workspace": workspace_id, "limit": limit, "at": place[0], "seq": place[1]}
    return [_listed(row) for row in tx.execute(_LISTS[status], given)]


@dataclass(frozen=True, slots=True)
class EventLog:
    """One event, its tries, the newest first, and what operators did to it."""

    event: ListedEvent
    resent_at: datetime | None
    tries: list[tuple[int, Answer]]
    acts: list[acts_store.Recorded]


_ONE = text(f"SELECT {_COLUMNS}, e.resent_at FROM webhook_events e {_LAST} WHERE e.id = :id")
_TRIES = text("""
    SELECT number, at, outcome, status, message FROM webhook_tries WHERE event_seq = :seq
    ORDER BY number DESC LIMIT :limit""")


def event_log(tx: Connection, event_id: str) -> EventLog | None:
    """One event of any workspace, with its latest TRIES tries."""
    row = tx.execute(_ONE, {"id": event_id}).one_or_none()
    if row is None:
        return None
    *columns, resent_at = row
    event = _listed(columns)
    rows = tx.execute(_TRIES, {"seq": event.seq, "limit": TRIES})
    tries = [(number, Answer(at, Outcome(outcome), status, message)) for number, at, outcome, status, message in rows]
    return EventLog(event, resent_at, tries, acts_store.of(tx, event_id, 20))
