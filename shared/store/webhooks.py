"""Webhook events: written under their post's lock, delivered in order for each post (docs/services.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.events import Event
from shared.domain.ids import new_id
from shared.settings import settings

DEAD_AFTER_HOURS = 24
KEPT_DAYS = 7


def wanted() -> bool:
    """Whether there is a receiver. Without its URL no event is written."""
    return bool(settings().webhook_url)


_RECORD = text("""
    INSERT INTO webhook_events (id, workspace_id, post_id, type, data)
    SELECT r.id, r.workspace_id, r.post_id, r.type, r.data
    FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS (
        id text, workspace_id text, post_id text, type text, data jsonb)) WITH ORDINALITY
        AS r(id, workspace_id, post_id, type, data, place)
    ORDER BY r.place""")


def record(tx: Connection, events: Sequence[Event]) -> list[str]:
    """Record events in their order, while their posts are locked; the posts to ring for after the commit."""
    if not events or not wanted():
        return []
    rows = [
        {
            "id": new_id("evt"),
            "workspace_id": event.workspace_id,
            "post_id": event.post_id,
            "type": event.type,
            "data": event.data,
        }
        for event in events
    ]
    tx.execute(_RECORD, {"rows": to_json(rows).decode()})
    return list(dict.fromkeys(event.post_id for event in events))


@dataclass(frozen=True, slots=True)
class Leased:
    """The oldest undelivered event of a post, ours to deliver while the lease lasts. `now`: as it was taken.

    `seq` rises from event to event of a post: it is given out under the post's lock, one at a time (CACHE 1). Receivers
    see it as the event's `sequence`.
    """

    seq: int
    id: str
    post_id: str
    type: str
    data: dict[str, Any]
    created_at: datetime
    tries: int
    lease_token: str
    now: datetime


# By an array, which is walked in its order: two workers at the same posts wait for each other's rows in one order.
_LEASE = text("""
    UPDATE webhook_events e SET tries = tries + 1, lease_token = :token,
        lease_expires_at = clock_timestamp() + make_interval(secs => :expiry)
    WHERE e.seq = ANY(ARRAY(SELECT min(seq) FROM webhook_events WHERE post_id = ANY(:ids) AND status = 'queued'
                            GROUP BY post_id ORDER BY min(seq)))
        AND e.status = 'queued' AND (e.lease_expires_at IS NULL OR e.lease_expires_at <= clock_timestamp())
    RETURNING e.seq, e.id, e.post_id, e.type, e.data, e.created_at, e.tries, e.lease_token, clock_timestamp()""")


def lease(tx: Connection, post_ids: Iterable[str], expiry: float) -> list[Leased]:
    """Lease the heads of these posts' queues, those that no other worker delivers and whose next try has come."""
    given = {"ids": list(post_ids), "token": new_id("lea"), "expiry": expiry}
    return [Leased(*row) for row in tx.execute(_LEASE, given)]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a leased event's call ended. `wait`: seconds until its next try, where it was not delivered. `unwanted`: the
    receiver said that it will never take it.
    """

    seq: int
    lease_token: str
    delivered: bool
    message: str | None
    wait: float
    unwanted: bool = False


_FINISH = text(f"""
    UPDATE webhook_events e SET
        status = f.status, message = f.message,
        finished_at = CASE WHEN f.status <> 'queued' THEN clock_timestamp() END,
        lease_token = CASE WHEN f.status = 'queued' THEN e.lease_token END,
        lease_expires_at = CASE WHEN f.status = 'queued' THEN clock_timestamp() + make_interval(secs => f.wait) END
    FROM (
        SELECT r.*, CASE WHEN r.delivered THEN 'delivered'
            WHEN r.unwanted THEN 'dead'
            WHEN w.created_at <= clock_timestamp() - make_interval(hours => {DEAD_AFTER_HOURS}) THEN 'dead'
            ELSE 'queued' END AS status
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            seq bigint, lease_token text, delivered boolean, message text, wait float, unwanted boolean)
        JOIN webhook_events w ON w.seq = r.seq) f
    WHERE e.seq = f.seq AND e.lease_token = f.lease_token AND e.status = 'queued'
    RETURNING e.post_id, e.status""")


def finish(tx: Connection, deliveries: Sequence[Delivery]) -> dict[str, str]:
    """Close delivered events, and events that were not taken for a day. The others keep their lease until the next try.

    Post -> delivered, dead or queued. Left out: those whose lease was no longer ours.
    """
    if not deliveries:
        return {}
    return {row[0]: row[1] for row in tx.execute(_FINISH, {"rows": to_json(deliveries).decode()})}


_FORGOTTEN = text("""
    SELECT post_id FROM (
        SELECT DISTINCT ON (post_id) post_id, seq, created_at, lease_expires_at FROM webhook_events
        WHERE status = 'queued' ORDER BY post_id, seq) head
    WHERE CASE WHEN lease_expires_at IS NULL THEN created_at < now() - make_interval(secs => :age)
               ELSE lease_expires_at <= clock_timestamp() END
    ORDER BY seq LIMIT :limit""")


def forgotten(tx: Connection, age: float, limit: int) -> list[str]:
    """Posts whose next event waits for longer than `age` seconds, or whose lease has expired."""
    return list(tx.execute(_FORGOTTEN, {"age": age, "limit": limit}).scalars())


_FORGET = text("""
    DELETE FROM webhook_events WHERE seq = ANY(ARRAY(
        SELECT seq FROM (SELECT seq FROM webhook_events WHERE status = 'delivered'
            AND finished_at < now() - make_interval(days => :days) LIMIT 1000) page ORDER BY seq))""")


def forget_delivered(tx: Connection, days: int = KEPT_DAYS) -> int:
    """Drop events delivered more than `days` ago, some thousand at a time; how many. The dead stay, to be seen."""
    return tx.execute(_FORGET, {"days": days}).rowcount


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that the receiver did not take for a day."""

    id: str
    workspace_id: str
    post_id: str
    type: str
    created_at: datetime
    finished_at: datetime
    tries: int
    message: str | None


_DEAD = text("""
    SELECT id, workspace_id, post_id, type, created_at, finished_at, tries, message
    FROM webhook_events WHERE status = 'dead' ORDER BY seq DESC LIMIT :limit""")


def dead(tx: Connection, limit: int) -> list[DeadEvent]:
    """The latest events that were given up, newest first."""
    return [DeadEvent(*row) for row in tx.execute(_DEAD, {"limit": limit})]
