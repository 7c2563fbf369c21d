"""What operators read of webhook events, of all workspaces: lists, and each event's tries. Each is bounded.

webhook_backlogs.py has the sums of each workspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text

from shared.domain.edit_histories import duration
from shared.domain.service_answers import Outcome
from shared.store import acts as acts_store
from shared.store.webhooks import QUEUED_AT

MANY: Final = 10_000
"""Counts stop there: a count of MANY means at least so many."""
TRIES: Final = 200
SLOW: Final = timedelta(seconds=1)
"""A call that lasts so long is said beside its answer."""


class EventStatus(StrEnum):
    """Whether an event waits for its receiver, was taken, or was given up."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one try at an event ended. `status`: the HTTP status, None where there was no answer. `took`: how long the
    call lasted, None where that is not known.
    """

    at: datetime
    outcome: Outcome
    status: int | None
    message: str | None
    took: timedelta | None = None

    @property
    def words(self) -> str:
        """`taken (204)`, `taken (204) after 4.2 s`, `500: the service answered 500`, `timed out`."""
        slow = f" after {duration(self.took)}" if self.took is not None and self.took >= SLOW else ""
        if self.outcome is Outcome.DONE:
            return (f"taken ({self.status})" if self.status else "taken") + slow
        said = self.message or self.outcome.value.replace("_", " ")
        return (said if self.status is None or str(self.status) in said else f"{self.status}: {said}") + slow


def answer_of(
    at: datetime | None, outcome: str | None, status: int | None, message: str | None, took_ms: int | None
) -> Answer | None:
    """An answer as a row holds it; None where there is no row."""
    return None if at is None or outcome is None else Answer(at, Outcome(outcome), status, message, took_of(took_ms))


def took_of(took_ms: float | None) -> timedelta | None:
    """How long a call lasted, of milliseconds."""
    return None if took_ms is None else timedelta(milliseconds=took_ms)


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
    e.tries, e.lease_expires_at, last.at, last.outcome, last.status, last.message, last.took_ms, clock_timestamp()"""
_LAST = """LEFT JOIN LATERAL (
        SELECT at, outcome, status, message, took_ms FROM webhook_tries t WHERE t.event_seq = e.seq
        ORDER BY number DESC LIMIT 1) last ON true"""


def _listed(row: Sequence[Any]) -> ListedEvent:
    seq, event_id, workspace_id, post_id, kind, status, created_at, queued_at, finished_at, tries, next_at, *rest = row
    *last, now = rest
    return ListedEvent(
        seq, event_id, workspace_id, post_id, kind, EventStatus(status), created_at, queued_at, finished_at, tries,
        next_at, answer_of(*last), now,
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


def _delivered(whose: str) -> str:
    return f"""
        SELECT {_COLUMNS} FROM (
            SELECT * FROM webhook_events WHERE status = 'delivered' AND :status = 'delivered' AND {whose}
                AND (finished_at, seq) < (CAST(:at AS timestamptz), CAST(:seq AS bigint))
            ORDER BY finished_at DESC, seq DESC LIMIT :limit) e
        {_LAST}
        ORDER BY e.finished_at DESC, e.seq DESC"""


_LISTS: Final = {
    EventStatus.QUEUED: text(_open("ASC", ">")),
    EventStatus.DEAD: text(_open("DESC", "<")),
    # ix_webhook_events_delivered
    EventStatus.DELIVERED: text(_delivered("CAST(:workspace AS text) IS NULL")),
}
# ix_webhook_events_taken: a filter would walk past the events of all other workspaces.
_DELIVERED_OF_ONE: Final = text(_delivered("workspace_id = :workspace"))


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
    of_one = status is EventStatus.DELIVERED and workspace_id is not None
    return [_listed(row) for row in tx.execute(_DELIVERED_OF_ONE if of_one else _LISTS[status], given)]


@dataclass(frozen=True, slots=True)
class EventLog:
    """One event, its tries, the newest first, and what operators did to it."""

    event: ListedEvent
    resent_at: datetime | None
    tries: list[tuple[int, Answer]]
    acts: list[acts_store.Recorded]


_ONE = text(f"SELECT {_COLUMNS}, e.resent_at FROM webhook_events e {_LAST} WHERE e.id = :id")
_TRIES = text("""
    SELECT number, at, outcome, status, message, took_ms FROM webhook_tries WHERE event_seq = :seq
    ORDER BY number DESC LIMIT :limit""")


def event_log(tx: Connection, event_id: str) -> EventLog | None:
    """One event of any workspace, with its latest TRIES tries."""
    row = tx.execute(_ONE, {"id": event_id}).one_or_none()
    if row is None:
        return None
    *columns, resent_at = row
    event = _listed(columns)
    rows = tx.execute(_TRIES, {"seq": event.seq, "limit": TRIES})
    tries = [
        (number, Answer(at, Outcome(outcome), status, said, took_of(took_ms)))
        for number, at, outcome, status, said, took_ms in rows
    ]
    return EventLog(event, resent_at, tries, acts_store.of(tx, event_id, 20))
