"""Claims: taking a post for a render or a publish, and the guarded ways out of it (SPEC 6)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.store import counted


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A claim to be taken on a locked post. `from_token` is the expired claim's that it takes over, else None."""

    post_id: str
    kind: str
    token: str
    from_status: str
    from_token: str | None = None


_CLAIM = text("""
    UPDATE posts p SET claim_kind = r.kind, claim_token = r.token, enqueued_revision = NULL, enqueued_at = NULL,
        claim_expires_at = clock_timestamp() + make_interval(secs => :expiry), retry_at = NULL
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        post_id text, kind text, token text, from_status text, from_token text)
    WHERE p.id = r.post_id AND p.status = r.from_status AND p.claim_token IS NOT DISTINCT FROM r.from_token
        AND p.deleted_at IS NULL AND (p.claim_token IS NULL OR p.claim_expires_at <= clock_timestamp())""")


def take_claims(tx: Connection, claims: Sequence[NewClaim], expiry: float) -> None:
    """Claim locked posts for `expiry` seconds: unclaimed ones, or ones whose claim has expired."""
    if claims:
        found = tx.execute(_CLAIM, {"rows": to_json(claims).decode(), "expiry": expiry}).rowcount
        counted(found, len(claims), "take_claims")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at publishing a post. Key and body outlive it: the next try of the same body repeats both (SPEC 6)."""

    post_id: str
    schedule_revision: int
    idempotency_key: str
    body: str
    try_number: int
    claim_token: str


_ATTEMPTS = text("""
    INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token)
    SELECT r.post_id, r.schedule_revision, r.idempotency_key, r.body, r.try_number, r.claim_token
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        post_id text, schedule_revision bigint, idempotency_key text, body text, try_number integer,
        claim_token text)""")


def record_attempts(tx: Connection, attempts: Sequence[Attempt]) -> None:
    """Write each try down before it is made, so that 'once' can be checked by anyone (SPEC 3.8)."""
    if attempts:
        tx.execute(_ATTEMPTS, {"rows": to_json(attempts).decode()})


@dataclass(frozen=True, slots=True)
class History:
    """What was tried for a post under its latest key, since the post was last put to work. Times aware, UTC."""

    post_id: str
    idempotency_key: str
    body: str
    tries: int
    never_started: int
    unknown: int
    first_started_at: datetime


# The latest key's tries. A retry by an operator starts the counting anew but keeps key and body.
_HISTORY = text("""
    SELECT l.post_id, l.idempotency_key, l.body, t.tries, t.never_started, t.unknown, t.first_started_at
    FROM (SELECT DISTINCT ON (post_id) post_id, idempotency_key, body FROM publish_attempts
          WHERE post_id = ANY(:ids) ORDER BY post_id, id DESC) l
    CROSS JOIN LATERAL (
        SELECT max(try_number) AS tries,
            count(*) FILTER (WHERE NOT forgiven AND outcome IN ('never_started', 'server_error')) AS never_started,
            count(*) FILTER (WHERE NOT forgiven AND (outcome = 'unknown' OR outcome IS NULL)) AS unknown,
            coalesce(min(started_at) FILTER (WHERE NOT forgiven), clock_timestamp()) AS first_started_at
        FROM publish_attempts a WHERE a.post_id = l.post_id AND a.idempotency_key = l.idempotency_key) t""")


def histories(tx: Connection, post_ids: Iterable[str]) -> dict[str, History]:
    """The tries so far, of posts that have any."""
    return {row[0]: History(*row) for row in tx.execute(_HISTORY, {"ids": list(post_ids)})}


_END_ATTEMPT = text("""
    UPDATE publish_attempts SET outcome = :outcome, message = :message, finished_at = clock_timestamp()
    WHERE claim_token = :token AND outcome IS NULL""")


def end_attempt(tx: Connection, token: str, outcome: str, message: str | None) -> None:
    """Write down how a try ended; the first word stands."""
    tx.execute(_END_ATTEMPT, {"token": token, "outcome": outcome, "message": message})


_FORGIVE = text("UPDATE publish_attempts SET forgiven = true WHERE post_id = ANY(:ids) AND NOT forgiven")


def forgive(tx: Connection, post_ids: Iterable[str]) -> None:
    """An operator retries these posts: earlier tries no longer count against them, key and body stay."""
    tx.execute(_FORGIVE, {"ids": list(post_ids)})


_UNCLAIMED = "claim_kind = NULL, claim_token = NULL, claim_expires_at = NULL"
_HELD = "WHERE id = :id AND claim_token = :token"

_POSTED = text(f"""
    UPDATE posts SET status = 'posted', posted_at = clock_timestamp(), platform_post_id = :platform_post_id,
        revision = revision + 1, {_UNCLAIMED} {_HELD} AND status = 'generated'""")
_FAILED = text(f"""
    UPDATE posts SET status = 'failed', failure_reason = :reason, revision = revision + 1, {_UNCLAIMED}
    {_HELD} AND status IN ('generated', 'pending_render')""")
_RENDERED = text(f"""
    UPDATE posts SET status = 'generated', rendered_url = :rendered_url,
        thumbnail_url = coalesce(:thumbnail_url, thumbnail_url), revision = revision + 1, render_tries = 0,
        enqueued_revision = CASE WHEN scheduled_time <= clock_timestamp() + make_interval(secs => :horizon)
                                 THEN schedule_revision END,
        enqueued_at = clock_timestamp(), {_UNCLAIMED}
    {_HELD} AND status = 'pending_render'
    RETURNING schedule_revision, enqueued_revision IS NOT NULL, scheduled_time, scheduled_time <= clock_timestamp()""")
_GIVEN_BACK = text(f"""
    UPDATE posts SET retry_at = :retry_at, render_tries = render_tries + :render_tries, {_UNCLAIMED}
    {_HELD} AND status IN ('generated', 'pending_render')""")
_KEPT = text(f"UPDATE posts SET claim_expires_at = :until {_HELD} AND status = 'generated'")


def finish_posted(tx: Connection, post_id: str, token: str, platform_post_id: str | None) -> bool:
    """The publish succeeded. False if the claim was no longer ours: a stale finish changes nothing."""
    given = {"id": post_id, "token": token, "platform_post_id": platform_post_id}
    return tx.execute(_POSTED, given).rowcount == 1


def finish_failed(tx: Connection, post_id: str, token: str, reason: str) -> bool:
    """Publish or render gave up. False if the claim was no longer ours."""
    return tx.execute(_FAILED, {"id": post_id, "token": token, "reason": reason}).rowcount == 1


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished render; `due` says that the publish has been marked and is to be enqueued, at once or at the time."""

    schedule_revision: int
    due: bool
    scheduled_time: datetime
    at_once: bool


def finish_rendered(
    tx: Connection, post_id: str, token: str, made: dict[str, Any], horizon: float
) -> Rendered | None:  # fmt: skip
    """The render succeeded: its result stands beside the source. None if the claim was no longer ours."""
    given = {"id": post_id, "token": token, "horizon": horizon}
    row = tx.execute(_RENDERED, given | made).one_or_none()
    return Rendered(*row) if row else None


def give_back(tx: Connection, post_id: str, token: str, retry_at: datetime, *, render_tries: int = 0) -> bool:
    """The call never started: the post is free again, to be tried not before `retry_at`. False if not ours."""
    given = {"id": post_id, "token": token, "retry_at": retry_at, "render_tries": render_tries}
    return tx.execute(_GIVEN_BACK, given).rowcount == 1


def keep_until(tx: Connection, post_id: str, token: str, until: datetime) -> bool:
    """The call may have been sent: the post stays closed, its claim expiring at the time of the next try."""
    return tx.execute(_KEPT, {"id": post_id, "token": token, "until": until}).rowcount == 1


_EXPIRED = text("""
    SELECT id, claim_kind, CASE claim_kind WHEN 'publish' THEN schedule_revision ELSE content_revision END
    FROM posts WHERE claim_kind IS NOT NULL AND claim_expires_at <= clock_timestamp()
    ORDER BY claim_expires_at LIMIT :limit""")


def expired(tx: Connection, limit: int) -> list[tuple[str, str, int]]:
    """Posts whose claim has expired: (post, kind, the revision that its task fences on)."""
    return [(row[0], row[1], row[2]) for row in tx.execute(_EXPIRED, {"limit": limit})]
