"""Bulk jobs as clients see them: made, read, listed, canceled, and the results of their posts (docs/bulk.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain import events
from shared.domain.reschedule_gaps import Caution
from shared.domain.reschedule_jobs import Job, JobStatus, Result, audit_id
from shared.domain.reschedules import Outcome
from shared.store import webhooks
from shared.store.idempotency import Repeat
from shared.store.raw_statements import array


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job to be recorded. `filter` and `items` of shared/domain/reschedule_requests.py."""

    id: str
    workspace_id: str
    api_key_id: str
    requested_by: str
    request_id: str
    dry_run: bool
    plan: dict[str, Any]
    filter: dict[str, Any] | None = None
    items: Sequence[Sequence[str]] | None = None
    reverts: str | None = None


_COLUMNS = "id, status, dry_run, total, applied, unchanged, skipped, failed, created_at, finished_at, error"

_INSERT = text(f"""
    WITH kept AS (
        INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource)
        SELECT :api_key_id, :key, decode(:fingerprint, 'hex'), :id WHERE CAST(:key AS text) IS NOT NULL
        ON CONFLICT DO NOTHING
        RETURNING resource
    )
    INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, request_id, dry_run, plan, filter, items,
        reverts)
    SELECT :id, :workspace_id, :api_key_id, :requested_by, :request_id, :dry_run, CAST(:plan AS jsonb),
        CAST(:filter AS jsonb), CAST(:items AS jsonb), :reverts
    WHERE CAST(:key AS text) IS NULL OR EXISTS (SELECT FROM kept)
    ON CONFLICT (reverts) DO NOTHING
    RETURNING {_COLUMNS}""")


def insert_job(tx: Connection, new: NewJob, repeat: Repeat | None = None) -> Job | None:
    """Record a job and its Idempotency-Key; ring for it below the commit. None where the key was taken, or where the
    job that it would revert is being reverted already: then nothing is to be committed.
    """
    row = tx.execute(
        _INSERT,
        {
            "id": new.id,
            "workspace_id": new.workspace_id,
            "api_key_id": new.api_key_id,
            "requested_by": new.requested_by,
            "request_id": new.request_id,
            "dry_run": new.dry_run,
            "plan": _json(new.plan),
            "filter": _json(new.filter),
            "items": _json(new.items),
            "reverts": new.reverts,
            "key": repeat and repeat.key,
            "fingerprint": repeat.fingerprint if repeat else "",
        },
    ).one_or_none()
    return _job(row) if row else None


def _json(value: object) -> str | None:
    return None if value is None else to_json(value).decode()


def _job(row: Sequence[Any]) -> Job:
    identity, status, *rest = tuple(row)
    return Job(identity, JobStatus(status), *rest)


_ENDED_AMONG = text("""
    SELECT id FROM reschedules WHERE id = ANY(CAST(:ids AS text[])) AND status NOT IN ('queued', 'running')""")


def ended_among(tx: Connection, job_ids: Sequence[str]) -> list[str]:
    """Those of the jobs that have ended."""
    return list(tx.execute(_ENDED_AMONG, {"ids": array(job_ids)}).scalars())


_JOB = text(f"SELECT {_COLUMNS} FROM reschedules WHERE id = :id AND workspace_id = :workspace")


def job(tx: Connection, workspace_id: str, job_id: str) -> Job | None:
    """A workspace's job: a row of counters, cheap to poll."""
    row = tx.execute(_JOB, {"id": job_id, "workspace": workspace_id}).one_or_none()
    return _job(row) if row else None


_JOBS = text(f"""
    SELECT {_COLUMNS} FROM reschedules
    WHERE workspace_id = :workspace
        AND (CAST(:before AS timestamptz) IS NULL OR (created_at, id) < (CAST(:before AS timestamptz), :before_id))
    ORDER BY created_at DESC, id DESC LIMIT :limit""")


def jobs(tx: Connection, workspace_id: str, limit: int, after: tuple[datetime, str] | None = None) -> list[Job]:
    """A workspace's jobs, newest first; `after` is the last one of the page before, by creation and id."""
    before, before_id = after or (None, "")
    rows = tx.execute(_JOBS, {"workspace": workspace_id, "limit": limit, "before": before, "before_id": before_id})
    return [_job(row) for row in rows]


_REVERTED_BY = text("SELECT id FROM reschedules WHERE reverts = :id")


def reverted_by(tx: Connection, job_id: str) -> str | None:
    """The job that reverts this one."""
    found: str | None = tx.execute(_REVERTED_BY, {"id": job_id}).scalar_one_or_none()
    return found


# -- The end of a job. Its event is written in the same transaction: below the commit, ring for it by the job's id.

ENDED = f"{_COLUMNS}, workspace_id"
"""What a statement returns of a job that it ends, for `ended`."""


def ended(tx: Connection, row: Sequence[Any] | None) -> Job | None:
    """Record the event of a job that a statement has ended; None where it ended none."""
    if row is None:
        return None
    *columns, workspace_id = row
    job = _job(columns)
    webhooks.record(tx, [events.reschedule_finished(workspace_id, job)])
    return job


_CANCEL = text(f"""
    UPDATE reschedules SET status = 'canceled', finished_at = clock_timestamp(), items = NULL
    WHERE id = :id AND workspace_id = :workspace AND status IN ('queued', 'running')
    RETURNING {ENDED}""")


def cancel(tx: Connection, workspace_id: str, job_id: str) -> Job | None:
    """Cancel a live job at once. A chunk at work finds the job canceled when it counts its step, and rolls back. None
    for a job that is final or unknown.
    """
    return ended(tx, tx.execute(_CANCEL, {"id": job_id, "workspace": workspace_id}).one_or_none())


_FINISH = text(f"""
    UPDATE reschedules SET status = 'done', finished_at = clock_timestamp(), touched_at = clock_timestamp()
    WHERE id = :id AND status = 'running' AND chunks_done = chunks AND held = 0
    RETURNING {ENDED}""")


def finish(tx: Connection, job_id: str) -> Job | None:
    """End a job whose posts are all decided. None for one that has ended, or that is not so far."""
    return ended(tx, tx.execute(_FINISH, {"id": job_id}).one_or_none())


_FAIL = text(f"""
    UPDATE reschedules SET status = 'failed', finished_at = clock_timestamp(), items = NULL, error = :error
    WHERE id = :id AND status IN ('queued', 'running')
    RETURNING {ENDED}""")


def fail(tx: Connection, job_id: str, error: str) -> Job | None:
    """Mark a live job as failed, because it cannot go on. None for a final job, which is left alone."""
    return ended(tx, tx.execute(_FAIL, {"id": job_id, "error": error}).one_or_none())


_LINE_UP = text("SELECT pg_advisory_xact_lock(7342, hashtext(:workspace))")
_LIVE_OF = text("SELECT count(*) FROM reschedules WHERE workspace_id = :workspace AND status IN ('queued', 'running')")


def live_of(tx: Connection, workspace_id: str) -> int:
    """How many jobs of a workspace are live. Until this transaction ends, no other transaction counts them."""
    tx.execute(_LINE_UP, {"workspace": workspace_id})
    return int(tx.execute(_LIVE_OF, {"workspace": workspace_id}).scalar_one())


# -- Results: what the chunks wrote down, and the audit rows. Both stand in id order of the posts.

_AUDITED = text("""
    SELECT right(id, 7), post_id,
        coalesce(before ->> 'scheduledTime', changes #>> '{move,scheduledTime}'), changes #>> '{move,scheduledTime}'
    FROM edits WHERE id BETWEEN :least AND :most AND reschedule_id = :job""")
_WITHOUT_AUDIT_ROW = text("""
    SELECT c.first, o.entry, c.post_ids[CAST(o.entry ->> 0 AS integer) + 1]
    FROM reschedule_chunks c, jsonb_array_elements(c.outcomes) AS o(entry)
    WHERE c.reschedule_id = :job AND c.number = :number""")
_BOUNDS = text("""
    SELECT number, first, cardinality(post_ids), outcomes <> '[]', warned FROM reschedule_chunks
    WHERE reschedule_id = :job AND first + cardinality(post_ids) > :start ORDER BY number""")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a chunk stands in its job. `has_outcomes`: some of its posts have an outcome without an audit row.
    `warned`: indexes of posts that share their minute.
    """

    number: int
    first: int
    count: int
    has_outcomes: bool
    warned: list[int]


def bounds(tx: Connection, job_id: str, start: int = 0) -> list[Bounds]:
    """The chunks from the one with ordinal `start` on."""
    return [Bounds(*row) for row in tx.execute(_BOUNDS, {"job": job_id, "start": start})]


def results(tx: Connection, of: Job, start: int, limit: int, outcome: Outcome | None = None) -> list[Result]:
    """At most `limit` results from ordinal `start` on; posts that are not decided yet are left out."""
    found: list[Result] = []
    for chunk in bounds(tx, of.id, start):
        found += chunk_results(tx, of, chunk, start, outcome)
        if len(found) >= limit:
            break
    return found[:limit]


def chunk_results(
    tx: Connection, of: Job, chunk: Bounds, start: int = 0, outcome: Outcome | None = None
) -> list[Result]:
    """The results of one chunk from ordinal `start` on, in order."""
    found: list[Result] = []
    # A dry run leaves no audit row; a real job leaves one for each post that it applied itself to, and for no other.
    if chunk.has_outcomes and (of.dry_run or outcome is not Outcome.APPLIED):
        found += [
            Result(first + one[0], post_id, *one[1:])
            for first, one, post_id in tx.execute(_WITHOUT_AUDIT_ROW, {"job": of.id, "number": chunk.number})
        ]
    if not of.dry_run and outcome in (None, Outcome.APPLIED):
        given = {"job": of.id, "least": audit_id(of.id, chunk.first)}
        found += [
            Result(int(ordinal), post_id, Outcome.APPLIED.value, before, after, None)
            for ordinal, post_id, before, after in tx.execute(
                _AUDITED, given | {"most": audit_id(of.id, chunk.first + chunk.count - 1)}
            )
        ]
    warned = {chunk.first + index for index in chunk.warned}
    return sorted(
        one._replace(warning=Caution.SAME_MINUTE.value) if one.ordinal in warned else one
        for one in found
        if one.ordinal >= start and outcome in (None, one.outcome)
    )
