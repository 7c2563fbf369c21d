"""Edits: one row is the queue, the outbox and the audit trail at once (docs/decisions/0001)."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult, QueuedEdit
from shared.store import counted, expecting, raw_statements
from shared.store.raw_statements import array
from shared.store.trip import Statement


# Not frozen, as in shared/domain/queued_edits.py. No code changes one.
@dataclass(slots=True)
class NewEdit:
    """One edit to be recorded. `key` and `fingerprint` belong together: Idempotency-Key and what it was sent with."""

    id: str
    post_id: str
    workspace_id: str
    changes: dict[str, Any]
    if_match: tuple[str, ...] | None
    api_key_id: str | None
    requested_by: str
    request_id: str | None
    key: str | None = None
    fingerprint: str | None = None


# Rows are inserted in the order of API key and Idempotency-Key: two processes that insert the same keys in different
# orders would deadlock. Rows without a key cannot collide and keep the order in which they came.
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
    """Record many edits in one statement; the ids recorded. Edits whose Idempotency-Key is taken are left out.

    `accepted_at` is the moment, by the database's clock, for which they were judged.
    """
    statement = _INSERT if any(edit.key is not None for edit in new) else _INSERT_KEYLESS
    return {row[0] for row in raw_statements.rows(tx, statement, to_json(new).decode(), accepted_at)}


@dataclass(frozen=True, slots=True)
class Queue:
    """Queued edits of some posts, oldest first. `more`: further edits of these posts were not read."""

    edits: list[QueuedEdit]
    more: bool = False

    def of(self, post_ids: Container[str]) -> "Queue":
        """The part of it that belongs to these posts."""
        return Queue([edit for edit in self.edits if edit.post_id in post_ids], self.more)


# A compressed value is measured by its text, as it will be read. The size of the others is known without reading.
_QUEUE = """
    SELECT id, seq, post_id, changes, if_match, created_at, attempts, requested_by, deferrals, size,
        clock_timestamp(), waiting
    FROM (
        SELECT q.*, sum(size) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - size AS ahead, count(*) OVER () AS waiting
        FROM (
            SELECT id, seq, post_id, changes, if_match, created_at, attempts, requested_by, deferrals,
                coalesce(octet_length(CAST(if_match AS text)), 0)
                + CASE WHEN pg_column_compression(changes) IS NULL THEN pg_column_size(changes)
                       ELSE octet_length(CAST(changes AS text)) END AS size
            FROM edits WHERE post_id = ANY(CAST($1 AS text[])) AND status = 'queued' ORDER BY seq LIMIT $2
        ) q
    ) sized
    WHERE ahead < $3 ORDER BY seq"""


def queued_edits(tx: Connection, post_ids: Iterable[str], limit: int, most: int) -> Queue:
    """The queued edits of locked posts, at most `limit` in all, and about `most` bytes of them."""
    return queue_of(raw_statements.rows(tx, *queue(post_ids, limit, most)), limit)


def queue(post_ids: Iterable[str], limit: int, most: int) -> Statement:
    """The statement of `queued_edits`, to travel behind the lock."""
    return _QUEUE, array(list(post_ids)), limit + 1, most


def queue_of(rows: Sequence[Sequence[Any]], limit: int) -> Queue:
    """What the statement of `queued_edits` returned."""
    waiting = rows[0][-1] if rows else 0
    found = [QueuedEdit(*row[:-1]) for row in rows[:limit]]
    return Queue(found, more=waiting > len(found))


_WAITING = text("""
    SELECT p.id FROM unnest(CAST(:ids AS text[])) AS p(id)
    WHERE EXISTS (SELECT FROM edits e WHERE e.post_id = p.id AND e.status = 'queued')""")


def posts_with_a_queue(tx: Connection, post_ids: Iterable[str]) -> list[str]:
    """Those of the posts for which an edit waits. Read without a lock: a doorbell is sent after its edit's commit."""
    return sorted(tx.execute(_WAITING, {"ids": list(post_ids)}).scalars())


# The state that a row comes from stands in a column beside its id: written as a constant it would let the planner walk
# the whole queue's index, dead entries included, for a handful of rows that the primary key finds. The subselects
# keep PostgreSQL from planning each call anew, as in the lock.
_COUNT = """
    UPDATE edits e SET attempts = e.attempts + 1, started_at = clock_timestamp()
    FROM unnest(ARRAY(SELECT unnest(CAST($1 AS text[]))), ARRAY(SELECT unnest(CAST($2 AS text[])))) AS r(id, was)
    WHERE e.id = r.id AND e.status = r.was"""
# The posts of these edits may be locked by another worker by now, which writes several of the edits in its own order.
# So this statement waits for no row: the two could deadlock.
_GIVE_BACK = text("""
    WITH owed AS (
        SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:was AS text[]), CAST(:before AS integer[]),
            CAST(:deferred AS boolean[])) AS r(id, was, before, deferred)
    ), ours AS (
        SELECT e.id FROM edits e JOIN owed r ON e.id = r.id AND e.status = r.was
        FOR NO KEY UPDATE OF e SKIP LOCKED
    ), given AS (
        UPDATE edits e SET
            attempts = e.attempts - CAST(e.attempts > r.before AS integer),
            deferrals = e.deferrals + CAST(r.deferred AS integer)
        FROM owed r WHERE e.id = r.id AND e.id IN (SELECT id FROM ours) AND (e.attempts > r.before OR r.deferred)
    )
    SELECT e.id FROM edits e JOIN owed r ON e.id = r.id AND e.status = r.was WHERE e.id NOT IN (SELECT id FROM ours)""")


def count_attempts(relaxed: Connection, ids: Sequence[str]) -> None:
    """Count an attempt for these edits, on a connection of its own, while their posts are locked."""
    queued = array([EditStatus.QUEUED.value] * len(ids))
    counted(raw_statements.changed(relaxed, _COUNT, array(ids), queued), len(ids), "count_attempts")


# As many as one task takes. What was tried before is counted before each of its runs.
_COUNT_DEATHS = """
    WITH dead AS (
        SELECT e.id FROM edits e WHERE e.post_id = ANY(CAST($1 AS text[])) AND e.status = 'queued' AND e.attempts = 0
            AND e.created_at < clock_timestamp() - make_interval(secs => $2)
        ORDER BY e.seq LIMIT 1000 FOR NO KEY UPDATE OF e SKIP LOCKED
    )
    UPDATE edits e SET attempts = 1, started_at = clock_timestamp() FROM dead WHERE e.id = dead.id"""


def count_deaths(relaxed: Connection, post_ids: Sequence[str], ago: float = 0.0) -> int:
    """Count an attempt for each queued edit of these posts that has none: work on them began `ago` seconds ago, and
    ended in a death or in a fault of our own. Returned: how many. Later edits are left out, and those that another
    session has locked.
    """
    return raw_statements.changed(relaxed, _COUNT_DEATHS, array(list(post_ids)), ago)


# In a statement of its own, on a connection that commits at once: the locks are released when it returns.
_FREE = text("""
    SELECT e.id FROM edits e JOIN unnest(CAST(:ids AS text[]), CAST(:was AS text[])) AS r(id, was)
        ON e.id = r.id AND e.status = r.was
    FOR NO KEY UPDATE OF e SKIP LOCKED""")


def free(relaxed: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these queued edits whose rows no other session has locked at this moment."""
    return set(relaxed.execute(_FREE, {"ids": list(ids), "was": [EditStatus.QUEUED.value] * len(ids)}).scalars())


@dataclass(frozen=True, slots=True)
class Owed:
    """An attempt to be given back. `before`: the edit's attempts before the count. `deferred`: PostgreSQL ended
    the work because it was too long or too large.
    """

    edit_id: str
    before: int
    deferred: bool


def give_back_attempts(relaxed: Connection, owed: Sequence[Owed]) -> set[str]:
    """Take attempts back, because the work stopped without a death. Final edits are left alone. The ids of edits that
    another session has locked are returned: their attempts are still to be given back.

    The connection may have been lost while the attempt was counted. An edit with no more attempts than `before` was
    never counted: it keeps its attempts, and remembers only that it was deferred.
    """
    given = {
        "ids": [one.edit_id for one in owed],
        "was": [EditStatus.QUEUED.value] * len(owed),
        "before": [one.before for one in owed],
        "deferred": [one.deferred for one in owed],
    }
    return set(relaxed.execute(_GIVE_BACK, given).scalars())


_FINALIZE = expecting(
    """
    UPDATE edits e SET
        status = r.status, revision = r.revision, before = r.before, result = r.result,
        error_code = r.error_code, error_message = r.error_message, error_details = r.error_details,
        lock_wait_ms = r.lock_wait_ms, finalized_at = clock_timestamp(),
        attempts = CASE WHEN CAST($3 AS boolean) THEN greatest(e.attempts, 1) ELSE e.attempts END,
        started_at = CASE WHEN CAST($3 AS boolean) AND e.attempts = 0 THEN now() ELSE e.started_at END
    FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS r(
        id text, was text, status text, revision bigint, before jsonb, result text, error_code text,
        error_message text, error_details jsonb, lock_wait_ms integer)
    WHERE e.id = r.id AND e.status = r.was""",
    "$2",
    "finalize_edits",
)

# `result` holds the new values of the fields that an edit changed, so `after` is not stored as well. Bulk moves have
# no result, and the rows that earlier versions wrote have both.
AFTER = """CASE WHEN after IS NULL AND before IS NOT NULL AND result IS NOT NULL THEN (
        SELECT coalesce(jsonb_object_agg(name, CAST(result AS jsonb) -> name), '{}')
        FROM jsonb_object_keys(before) AS name) ELSE after END AS after"""


def finalize_edits(tx: Connection, results: Sequence[EditResult], *, tried: bool = True) -> None:
    """Write the results of edits. Only a queued edit gets one: StaleWriteError where another row count is found.

    `tried`: a worker ran them, which counts as an attempt where none was counted before.
    """
    if results:
        raw_statements.rows(tx, *finalizing(results, tried=tried))


def finalizing(results: Sequence[EditResult], *, tried: bool = True) -> Statement:
    """The statement of `finalize_edits`, to travel behind the writes of the posts."""
    return _FINALIZE, to_json(results, exclude={"__all__": {"after"}}).decode(), len(results), str(tried).lower()


# A thousand of the largest answers are 75 MB.
_RESULTS, _RESULTS_BARE = (
    text(f"""
    SELECT id, status, revision, NULL, NULL, {body}, error_code, error_message, error_details, NULL
    FROM edits WHERE id = ANY(:ids) AND status <> 'queued'""")
    for body in ("result", "NULL")
)


def results_of(tx: Connection, ids: Iterable[str], *, bodies: bool = True) -> dict[str, EditResult]:
    """The results of those of these edits that are final, without audit fields: what a waiting request asks for.

    `bodies`: with the posts as the edits left them.
    """
    rows = tx.execute(_RESULTS if bodies else _RESULTS_BARE, {"ids": list(ids)})
    return {row[0]: EditResult(row[0], EditStatus(row[1]), *row[2:]) for row in rows}


_WHICH = text("SELECT id FROM edits WHERE id = ANY(:ids)")


def recorded(tx: Connection, ids: Iterable[str]) -> set[str]:
    """Which of these edits exist: asked after a connection was lost in COMMIT."""
    return set(tx.execute(_WHICH, {"ids": list(ids)}).scalars())


# At random, where there are more than the limit: the posts that wait longest may all be locked elsewhere, and would be
# the only ones ever rung for.
_FORGOTTEN = text("""
    SELECT post_id FROM edits WHERE status = 'queued' AND created_at < now() - make_interval(secs => :age)
    GROUP BY post_id ORDER BY random() LIMIT :limit""")


def forgotten_posts(tx: Connection, age: float, limit: int) -> list[str]:
    """Posts with an edit that has waited longer than `age` seconds, whichever they are, at most `limit`."""
    return list(tx.execute(_FORGOTTEN, {"age": age, "limit": limit}).scalars())
