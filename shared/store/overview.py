"""The numbers and lists of the operators' page: what waits, what is late, the last hour, bulk jobs.

Everything here is bounded, by an index that exists and a LIMIT, so that it stays quick with millions of rows. Counts
end above MANY. Each transaction of the page begins with `limit_statements`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from shared.domain import reschedule_gaps
from shared.domain.ids import new_id
from shared.domain.plurals import MANY
from shared.domain.service_answers import WORKER_GONE
from shared.domain.times import Duration
from shared.store.hold_tables import DUE_AT, FREE

LATE_AFTER = 10.0
"""Seconds: a post overdue by 2 s is sent again every 5 s, so a post that is 10 s late has been sent again."""

_LIMIT_STATEMENTS = text("SELECT set_config('statement_timeout', :limit, true)")


def limit_statements(tx: Connection, seconds: float = 1.0) -> None:
    """Give up any statement of this transaction that takes longer: a page must not cost the API its connections."""
    tx.execute(_LIMIT_STATEMENTS, {"limit": f"{int(seconds * 1000)}ms"})


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of what waits and what is late. Any count above MANY means more than MANY.

    `oldest`: when the edit that has waited longest was accepted.
    """

    now: datetime
    queued: int
    oldest: datetime | None
    failed: int
    failed_posts: int
    late: int
    jobs: int


_LATE = f"scheduled_time < now() - make_interval(secs => :late) AND {DUE_AT} < now() - make_interval(secs => :late)"
DUE_LATE = f"""FROM posts WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL
    AND {FREE} AND {_LATE}"""
UNRENDERED_LATE = f"""FROM posts WHERE status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
    AND {FREE} AND {_LATE}"""
# What a publish has claimed goes out, held or not.
CLAIMED_LATE = f"""FROM posts WHERE claim_kind IS NOT NULL AND (claim_kind = 'publish' OR {FREE})
    AND {_LATE}"""

_SUMMARY = text(f"""
    SELECT clock_timestamp(), queue.count, queue.oldest,
        (SELECT count(*) FROM (SELECT FROM edits WHERE status = 'failed' LIMIT :many) failed),
        (SELECT count(*) FROM (SELECT FROM posts WHERE status = 'failed' AND deleted_at IS NULL LIMIT :many) failed),
        (SELECT count(*) FROM (SELECT {DUE_LATE} LIMIT :many) due)
            + (SELECT count(*) FROM (SELECT {UNRENDERED_LATE} LIMIT :many) unrendered)
            + (SELECT count(*) FROM (SELECT {CLAIMED_LATE} LIMIT :many) claimed),
        (SELECT count(*) FROM (SELECT FROM reschedules WHERE status IN ('queued', 'running') LIMIT :many) live)
    FROM (SELECT count(*) AS count, min(created_at) AS oldest
          FROM (SELECT created_at FROM edits WHERE status = 'queued' LIMIT :many) queued) queue""")


def summary(tx: Connection, late_after: float = LATE_AFTER) -> Summary:
    """Counts for the head of the page, and for `redraft doctor`."""
    return Summary(*tx.execute(_SUMMARY, {"many": MANY + 1, "late": late_after}).one())


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of the last hour. `recorded`: edits accepted and posts moved by jobs; waits in seconds from an edit's
    acceptance to its end, of up to SAMPLE edits; None where there were none.
    """

    at: datetime
    recorded: int
    longest_wait: float | None
    median_wait: float | None


SAMPLE = 100
MINUTES = 60

# For each minute a place in the primary key and a few rows from there: the price is the same for ten edits an hour as
# for ten million. How many were recorded in a minute is how far the identity column went.
_MINUTES = text("""
    SELECT f.place, s.seq, s.longest, s.median
    FROM unnest(CAST(:floors AS text[]), CAST(:ends AS text[])) WITH ORDINALITY AS f(floor, ends, place)
    CROSS JOIN LATERAL (
        SELECT min(seq) AS seq, max(wait) AS longest, percentile_cont(0.5) WITHIN GROUP (ORDER BY wait) AS median
        FROM (
            SELECT seq, reschedule_id,
                extract(epoch FROM coalesce(finalized_at, clock_timestamp()) - created_at) AS wait
            FROM edits WHERE id >= f.floor AND id < f.ends ORDER BY id LIMIT :sample
        ) sample WHERE reschedule_id IS NULL
    ) s ORDER BY f.place""")
_LAST_RECORDED = text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('edits', 'seq')), 0)")


def _floor(at: datetime) -> str:
    """Where in the primary key the edits made from `at` on begin, to 8 ms."""
    return new_id("edit", at.timestamp())[: len("edit_") + 9]


def last_hour(tx: Connection, now: datetime) -> list[Minute]:
    """The last 60 minutes of edits, the oldest first; the newest is the current one, unfinished."""
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    starts = [first + timedelta(minutes=number) for number in range(MINUTES + 1)]
    floors = [_floor(start) for start in starts]
    given = {"floors": floors[:-1], "ends": floors[1:], "sample": SAMPLE}
    rows = list(tx.execute(_MINUTES, given))
    # An edit that was requeued has a higher number than its neighbours: from the right, numbers only fall.
    next_seq: int = tx.execute(_LAST_RECORDED).scalar_one() + 1
    counts: list[int] = []
    for row in reversed(rows):
        seq = min(row.seq if row.seq is not None else next_seq, next_seq)
        counts.append(next_seq - seq)
        next_seq = seq
    return [
        Minute(start, count, _seconds(row.longest), _seconds(row.median))
        for start, count, row in zip(starts[:-1], reversed(counts), rows, strict=True)
    ]


def _seconds(value: Any) -> float | None:
    return None if value is None else max(0.0, float(value))


# The newest tries, by the primary key.
_LATENESS = text(f"""
    WITH newest AS MATERIALIZED (
        SELECT post_id, outcome, started_at FROM publish_attempts ORDER BY id DESC LIMIT :limit)
    SELECT extract(epoch FROM p.posted_at), greatest(0, extract(epoch FROM p.posted_at - p.due_at)),
        (SELECT count(*) = :limit AND min(started_at) >= :since FROM newest)
    -- OFFSET 0: a look-up for each, never a join that reads all posts.
    FROM newest CROSS JOIN LATERAL (
        SELECT posted_at, {DUE_AT} AS due_at FROM posts WHERE id = newest.post_id OFFSET 0) p
    WHERE newest.outcome = 'done' AND p.posted_at >= :since""")
TRIES_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late posts went out at most, in seconds, in each of the last 60 minutes; None where none did.

    `truncated`: only the newest TRIES_LOOKED_AT of the hour's tries were looked at.
    """

    worst: list[float | None]
    truncated: bool


def lateness(tx: Connection, now: datetime) -> Lateness:
    """The lateness of the last hour's posts."""
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    worst: list[float | None] = [None] * MINUTES
    rows = list(tx.execute(_LATENESS, {"limit": TRIES_LOOKED_AT, "since": first}))
    for posted, late, _ in rows:
        place = min(MINUTES - 1, int((float(posted) - first.timestamp()) // 60))
        worst[place] = max(worst[place] or 0.0, float(late))
    return Lateness(worst, truncated=bool(rows and rows[0][2]))


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A bulk job as operators see it. `total` is None until its posts are frozen."""

    id: str
    workspace_id: str
    requested_by: str
    status: str
    dry_run: bool
    plan: dict[str, Any]
    total: int | None
    applied: int
    skipped: int
    failed: int
    contended: int
    attempts: int
    created_at: datetime
    started_at: datetime | None
    touched_at: datetime
    finished_at: datetime | None
    reverts: str | None
    error: str | None
    now: datetime
    gap: Duration | None = None

    @property
    def decided(self) -> int:
        return self.applied + self.skipped + self.failed

    @property
    def live(self) -> bool:
        return self.status in ("queued", "running")

    @property
    def kind(self) -> str:
        """`shift`, `spread`, `items` or `revert`."""
        return next(iter(self.plan), "")


_JOB_COLUMNS = """id, workspace_id, requested_by, status, dry_run, plan, total, applied, skipped, failed, held,
    attempts, created_at, started_at, touched_at, finished_at, reverts, error, clock_timestamp()"""
_JOB = text(f"SELECT {_JOB_COLUMNS} FROM reschedules WHERE id = :id")
_JOBS = text(f"SELECT {_JOB_COLUMNS} FROM reschedules WHERE id < :before ORDER BY id DESC LIMIT :limit")
_LIVE_JOBS = text(f"""
    SELECT {_JOB_COLUMNS} FROM reschedules WHERE status IN ('queued', 'running') ORDER BY id LIMIT :limit""")


def _history(row: Sequence[Any]) -> JobHistory:
    found = JobHistory(*row)
    plan, gap = reschedule_gaps.split(found.plan)
    return replace(found, plan=plan, gap=gap)


def job(tx: Connection, job_id: str) -> JobHistory | None:
    """One bulk job, whosever it is."""
    row = tx.execute(_JOB, {"id": job_id}).one_or_none()
    return _history(row) if row else None


def jobs(tx: Connection, limit: int, before: str | None = None) -> list[JobHistory]:
    """Bulk jobs, newest first (the primary key: ids sort by time); `before` is the last one of the page before."""
    rows = tx.execute(_JOBS, {"before": before or "z" * 32, "limit": limit})
    return [_history(row) for row in rows]


def live_jobs(tx: Connection, limit: int) -> list[JobHistory]:
    """Jobs that have not ended, the oldest first (ix_reschedules_live)."""
    return [_history(row) for row in tx.execute(_LIVE_JOBS, {"limit": limit})]


@dataclass(frozen=True, slots=True)
class Try:
    """One try at publishing a post, without the body that it sent."""

    number: int
    schedule_revision: int
    idempotency_key: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    message: str | None
    forgiven: bool

    @property
    def took(self) -> timedelta | None:
        """How long the call took; None where it is under way, or where its end is not known."""
        if self.finished_at is None or self.message == WORKER_GONE:
            return None
        return self.finished_at - self.started_at


_TRIES = text("""
    SELECT try_number, schedule_revision, idempotency_key, started_at, finished_at, outcome, message, forgiven
    FROM publish_attempts WHERE post_id = :post ORDER BY id DESC LIMIT :limit""")


def tries(tx: Connection, post_id: str, limit: int) -> list[Try]:
    """The latest tries at publishing a post, newest first (ix_publish_attempts_post)."""
    return [Try(*row) for row in tx.execute(_TRIES, {"post": post_id, "limit": limit})]
