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
    see it as the event's `sequence`. `queued_at`: when it was made, or when an operator queued it again.
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
    queued_at: datetime


QUEUED_AT = "coalesce(resent_at, created_at)"
"""When an event was made, or when an operator queued it again (ix_webhook_events_open)."""
MOST_TRIES = 32_767
"""What `tries` can hold. A receiver that asks to wait for a second each time must not end a batch of leases."""

# By an array, which is walked in its order: two workers at the same posts wait for each other's rows in one order.
_LEASE = text(f"""
    UPDATE webhook_events e SET tries = least(tries + 1, {MOST_TRIES}), lease_token = :token,
        lease_expires_at = clock_timestamp() + make_interval(secs => :expiry)
    WHERE e.seq = ANY(ARRAY(SELECT min(seq) FROM webhook_events WHERE post_id = ANY(:ids) AND status = 'queued'
                            GROUP BY post_id ORDER BY min(seq)))
        AND e.status = 'queued' AND (e.lease_expires_at IS NULL OR e.lease_expires_at <= clock_timestamp())
    RETURNING e.seq, e.id, e.post_id, e.type, e.data, e.created_at, e.tries, e.lease_token, clock_timestamp(),
        {QUEUED_AT}""")


def lease(tx: Connection, post_ids: Iterable[str], expiry: float) -> list[Leased]:
    """Lease the heads of these posts' queues, those that no other worker delivers and whose next try has come."""
    given = {"ids": list(post_ids), "token": new_id("lea"), "expiry": expiry}
    return [Leased(*row) for row in tx.execute(_LEASE, given)]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a leased event's call ended. `wait`: seconds until its next try, where it was not delivered. `unwanted`: the
    receiver said that it will never take it. `outcome`, `answer`: the meaning and the HTTP status of its answer.
    `took_ms`: how long the call lasted.
    """

    seq: int
    lease_token: str
    delivered: bool
    message: str | None
    wait: float
    outcome: str
    answer: int | None = None
    took_ms: int | None = None
    unwanted: bool = False


_FINISH = text(f"""
    WITH finished AS (
        UPDATE webhook_events e SET
            status = f.status, message = f.message,
            finished_at = CASE WHEN f.status <> 'queued' THEN clock_timestamp() END,
            lease_token = CASE WHEN f.status = 'queued' THEN e.lease_token END,
            lease_expires_at = CASE WHEN f.status = 'queued' THEN clock_timestamp() + make_interval(secs => f.wait) END
        FROM (
            SELECT r.*, CASE WHEN r.delivered THEN 'delivered'
                WHEN r.unwanted THEN 'dead'
                WHEN coalesce(w.resent_at, w.created_at)
                    <= clock_timestamp() - make_interval(hours => {DEAD_AFTER_HOURS}) THEN 'dead'
                ELSE 'queued' END AS status
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
                seq bigint, lease_token text, delivered boolean, message text, wait float, unwanted boolean,
                outcome text, answer smallint, took_ms integer)
            JOIN webhook_events w ON w.seq = r.seq) f
        WHERE e.seq = f.seq AND e.lease_token = f.lease_token AND e.status = 'queued'
        RETURNING e.seq, e.post_id, e.workspace_id, e.status, e.tries, f.outcome, f.answer, f.message,
            f.took_ms
    ), logged AS (
        INSERT INTO webhook_tries (event_seq, number, workspace_id, outcome, status, message, took_ms)
        SELECT seq, tries, workspace_id, outcome, answer, message, took_ms FROM finished
        ON CONFLICT (event_seq, number) DO UPDATE
            SET at = excluded.at, outcome = excluded.outcome, status = excluded.status, message = excluded.message,
                took_ms = excluded.took_ms
    )
    SELECT post_id, status FROM finished""")


def finish(tx: Connection, deliveries: Sequence[Delivery]) -> dict[str, str]:
    """Close delivered events, and events that were not taken for a day, and log each try. The others keep their lease
    until the next try.

    Post -> delivered, dead or queued. Left out: those whose lease was no longer ours.
    """
    if not deliveries:
        return {}
    return {row[0]: row[1] for row in tx.execute(_FINISH, {"rows": to_json(deliveries).decode()})}


FORGOTTEN_LOOKED_AT = 20_000
"""Waiting events that one look for forgotten ones reads."""

# ix_webhook_events_queue, a part of it.
_FORGOTTEN = text("""
    WITH looked_at AS MATERIALIZED (
        SELECT post_id, seq, created_at, lease_expires_at FROM webhook_events
        WHERE status = 'queued' AND post_id > :after ORDER BY post_id, seq LIMIT :looked_at),
    found AS (
        SELECT post_id, seq FROM (
            SELECT DISTINCT ON (post_id) post_id, seq, created_at, lease_expires_at FROM looked_at
            ORDER BY post_id, seq) head
        WHERE CASE WHEN lease_expires_at IS NULL THEN created_at < now() - make_interval(secs => :age)
                   ELSE lease_expires_at <= clock_timestamp() END
        ORDER BY post_id LIMIT :limit)
    SELECT ARRAY(SELECT post_id FROM found ORDER BY seq), (SELECT count(*) FROM found),
        (SELECT max(post_id) FROM found), (SELECT CASE WHEN count(*) = :looked_at THEN max(post_id) END FROM looked_at)
""")


def forgotten(tx: Connection, age: float, limit: int, after: str = "") -> tuple[list[str], str]:
    """Posts whose next event waits for longer than `age` seconds, or whose lease has expired: at most `limit`, among
    FORGOTTEN_LOOKED_AT events. Returned second: the post to go on from, as `after`; empty at the end.
    """
    given = {"age": age, "limit": limit, "after": after, "looked_at": FORGOTTEN_LOOKED_AT}
    found, count, last, place = tx.execute(_FORGOTTEN, given).one()
    return found, (last if count and count == limit else place) or ""


FORGOTTEN_A_PAGE = 1000

_FORGET = text("""
    DELETE FROM webhook_events WHERE seq = ANY(ARRAY(
        SELECT seq FROM (SELECT seq FROM webhook_events WHERE status = 'delivered'
            AND finished_at < now() - make_interval(days => :days) LIMIT :limit) page ORDER BY seq))""")


def forget_delivered(tx: Connection, days: int = KEPT_DAYS) -> int:
    """Drop events delivered more than `days` ago, with their tries, FORGOTTEN_A_PAGE at most; how many. The dead stay,
    to be seen.
    """
    return tx.execute(_FORGET, {"days": days, "limit": FORGOTTEN_A_PAGE}).rowcount
