"""Edits: the row that is the queue, the outbox and the audit trail at once (SPEC 1)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.lifecycle import EditStatus
from shared.store import counted, direct
from shared.store.direct import array


@dataclass(frozen=True, slots=True)
class NewEdit:
    """One edit to be recorded. `key` and `fingerprint` belong together: Idempotency-Key and what it was sent with."""

    id: str
    post_id: str
    workspace_id: str
    changes: dict[str, Any]
    if_match: tuple[str, ...] | None
    api_key_id: str
    requested_by: str
    request_id: str
    key: str | None = None
    fingerprint: str | None = None


# Rows go in by API key and Idempotency-Key: two processes that insert the same keys in different orders would wait
# for each other (SPEC 7). Rows without a key cannot collide and keep the order in which they came.
_INSERT = """
    WITH input AS (
        SELECT r.*, row_number() OVER () AS place
        FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS r(
            id text, post_id text, workspace_id text, changes jsonb, if_match text[], api_key_id text,
            requested_by text, request_id text, key text, fingerprint text)
    ), kept AS (
        INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource)
        SELECT api_key_id, key, decode(fingerprint, 'hex'), id FROM input WHERE key IS NOT NULL
        ORDER BY api_key_id, key
        ON CONFLICT DO NOTHING
        RETURNING resource
    )
    INSERT INTO edits (id, post_id, workspace_id, changes, if_match, api_key_id, requested_by, request_id, created_at)
    SELECT id, post_id, workspace_id, changes, if_match, api_key_id, requested_by, request_id, $2
    FROM input WHERE key IS NULL OR id IN (SELECT resource FROM kept)
    ORDER BY place
    RETURNING id"""

_INSERT_KEYLESS = """
    INSERT INTO edits (id, post_id, workspace_id, changes, if_match, api_key_id, requested_by, request_id, created_at)
    SELECT r.id, r.post_id, r.workspace_id, r.changes, r.if_match, r.api_key_id, r.requested_by, r.request_id, $2
    FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS r(
        id text, post_id text, workspace_id text, changes jsonb, if_match text[], api_key_id text,
        requested_by text, request_id text)
    RETURNING id"""


def insert_edits(tx: Connection, new: Sequence[NewEdit], accepted_at: datetime) -> set[str]:
    """Record many edits in one statement; the ids recorded. Left out: those whose Idempotency-Key was taken.

    `accepted_at` is the moment, by the database's clock, for which they were judged.
    """
    statement = _INSERT if any(edit.key is not None for edit in new) else _INSERT_KEYLESS
    return {row[0] for row in direct.rows(tx, statement, to_json(new).decode(), accepted_at)}


@dataclass(frozen=True, slots=True)
class QueuedEdit:
    """An edit as the worker reads it. `attempts` counts the times that somebody started it and died.

    `read_at` is the database's clock as this was read: what is due is judged by it.
    """

    id: str
    seq: int
    post_id: str
    changes: dict[str, Any]
    if_match: list[str] | None
    created_at: datetime
    attempts: int
    requested_by: str
    read_at: datetime


_QUEUE = """
    SELECT id, seq, post_id, changes, if_match, created_at, attempts, requested_by, clock_timestamp()
    FROM edits WHERE post_id = ANY(CAST($1 AS text[])) AND status = 'queued' ORDER BY seq LIMIT $2"""


def queued_edits(tx: Connection, post_ids: Iterable[str], limit: int) -> list[QueuedEdit]:
    """The queued edits of locked posts, oldest first, at most `limit` in all."""
    return [QueuedEdit(*row) for row in direct.rows(tx, *queue(post_ids, limit))]


def queue(post_ids: Iterable[str], limit: int) -> direct.Statement:
    """The statement of `queued_edits`, to travel behind the lock."""
    return _QUEUE, array(list(post_ids)), limit


_WAITING = text("""
    SELECT p.id FROM unnest(CAST(:ids AS text[])) AS p(id)
    WHERE EXISTS (SELECT FROM edits e WHERE e.post_id = p.id AND e.status = 'queued')""")


def posts_with_a_queue(tx: Connection, post_ids: Iterable[str]) -> list[str]:
    """Those of the posts for which an edit waits. Read without a lock: what was rung for stands in it already."""
    return sorted(tx.execute(_WAITING, {"ids": list(post_ids)}).scalars())


# The state that a row comes from stands in a column beside its id: written as a constant it would let the planner walk
# the whole queue's index, dead entries included, for a handful of rows that the primary key finds. The subselects
# keep PostgreSQL from planning each call anew, as in the lock.
_COUNT = """
    UPDATE edits e SET attempts = e.attempts + 1, started_at = clock_timestamp()
    FROM unnest(ARRAY(SELECT unnest(CAST($1 AS text[]))), ARRAY(SELECT unnest(CAST($2 AS text[])))) AS r(id, was)
    WHERE e.id = r.id AND e.status = r.was"""
_GIVE_BACK = text("""
    UPDATE edits e SET attempts = e.attempts - 1
    FROM unnest(CAST(:ids AS text[]), CAST(:was AS text[]), CAST(:before AS integer[])) AS r(id, was, before)
    WHERE e.id = r.id AND e.status = r.was AND e.attempts > r.before""")


def count_attempts(aside: Connection, ids: Sequence[str]) -> None:
    """Write down that work on these edits begins, on a connection of its own, while their posts are locked."""
    queued = array([EditStatus.QUEUED.value] * len(ids))
    counted(direct.changed(aside, _COUNT, array(ids), queued), len(ids), "count_attempts")


# In a statement of its own, on a connection that commits at once: the locks are let go with its end.
_FREE = text("""
    SELECT e.id FROM edits e JOIN unnest(CAST(:ids AS text[]), CAST(:was AS text[])) AS r(id, was)
        ON e.id = r.id AND e.status = r.was
    FOR NO KEY UPDATE OF e SKIP LOCKED""")


def free(aside: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these queued edits whose rows nobody else has locked at this moment."""
    return set(aside.execute(_FREE, {"ids": list(ids), "was": [EditStatus.QUEUED.value] * len(ids)}).scalars())


def give_back_attempts(aside: Connection, before: Mapping[str, int]) -> None:
    """The work ended without a death: what was counted is no attempt (SPEC 3.5). Ended edits are left alone.

    `before`: an edit -> its attempts before it was counted. The connection may have been lost in the counting: one that
    has no more than these was never counted, and keeps what it has.
    """
    given = {"ids": list(before), "was": [EditStatus.QUEUED.value] * len(before), "before": list(before.values())}
    aside.execute(_GIVE_BACK, given)


@dataclass(frozen=True, slots=True)
class End:
    """How an edit ended. `revision` is the post's as the edit left it, or, refused, as it found it."""

    id: str
    status: EditStatus
    revision: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    result: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: list[dict[str, str]] | None = None
    lock_wait_ms: int | None = None
    was: EditStatus = EditStatus.QUEUED


_FINALIZE = """
    UPDATE edits e SET
        status = r.status, revision = r.revision, before = r.before, after = r.after, result = r.result,
        error_code = r.error_code, error_message = r.error_message, error_details = r.error_details,
        lock_wait_ms = r.lock_wait_ms, finalized_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS r(
        id text, was text, status text, revision bigint, before jsonb, after jsonb, result text, error_code text,
        error_message text, error_details jsonb, lock_wait_ms integer)
    WHERE e.id = r.id AND e.status = r.was"""


def finalize_edits(tx: Connection, ends: Sequence[End]) -> None:
    """End edits, each once: only a queued one can end, and another row count than expected rolls back."""
    if ends:
        counted(direct.changed(tx, *finalizing(ends)), len(ends), "finalize_edits")


def finalizing(ends: Sequence[End]) -> direct.Statement:
    """The statement of `finalize_edits`, to travel behind what the ends did."""
    return _FINALIZE, to_json(ends).decode()


_ENDS = text("""
    SELECT id, status, revision, NULL, NULL, result, error_code, error_message, error_details, NULL
    FROM edits WHERE id = ANY(:ids) AND status <> 'queued'""")


def ends_of(tx: Connection, ids: Iterable[str]) -> dict[str, End]:
    """How these edits ended, those that have (audit fields left out): what a waiting request asks for."""
    return {row[0]: End(row[0], EditStatus(row[1]), *row[2:]) for row in tx.execute(_ENDS, {"ids": list(ids)})}


_WHICH = text("SELECT id FROM edits WHERE id = ANY(:ids)")


def recorded(tx: Connection, ids: Iterable[str]) -> set[str]:
    """Which of these edits exist: asked after a connection was lost in COMMIT (SPEC 4)."""
    return set(tx.execute(_WHICH, {"ids": list(ids)}).scalars())


# By lot, where there are more than the limit: the longest waiting may all be held by somebody, and would be the only
# ones ever rung for.
_FORGOTTEN = text("""
    SELECT post_id FROM edits WHERE status = 'queued' AND created_at < now() - make_interval(secs => :age)
    GROUP BY post_id ORDER BY random() LIMIT :limit""")


def forgotten_posts(tx: Connection, age: float, limit: int) -> list[str]:
    """Posts with an edit that has waited longer than `age` seconds, whichever they are, at most `limit`."""
    return list(tx.execute(_FORGOTTEN, {"age": age, "limit": limit}).scalars())
