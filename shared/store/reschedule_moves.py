"""The move itself: a thousand posts and their audit rows in one statement, under the posts' locks (docs/bulk.md)."""

from collections.abc import Generator, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from shared.domain.reschedule_jobs import audit_id
from shared.store import counted
from shared.store.raw_statements import array
from shared.store.reschedule_chunks import Work

_QUEUES = text("""
    SELECT clock_timestamp(), ARRAY(SELECT DISTINCT e.post_id FROM edits e
        WHERE e.post_id = ANY(CAST(:ids AS text[])) AND e.status = 'queued')""")


def moment(tx: Connection, post_ids: Sequence[str]) -> tuple[datetime, list[str]]:
    """The database's clock at this moment, and those of the posts for which an edit waits. Of posts that are to be
    moved it is read when they are locked.
    """
    now, waiting = tx.execute(_QUEUES, {"ids": array(post_ids)}).one()
    return now, waiting


_STARTED_RECENTLY = text("""
    SELECT DISTINCT post_id FROM edits
    WHERE post_id = ANY(CAST(:ids AS text[])) AND status = 'queued' AND (attempts > 0 OR deferrals > 0)
        AND started_at > clock_timestamp() - make_interval(secs => :age)""")


def started_recently(tx: Connection, post_ids: Iterable[str], age: float) -> set[str]:
    """Those of the posts with a queued edit that a worker started less than `age` seconds ago."""
    return set(tx.execute(_STARTED_RECENTLY, {"ids": array(list(post_ids)), "age": age}).scalars())


class Waiting(NamedTuple):
    """A queued edit as a dry run reads it."""

    post_id: str
    changes: dict[str, Any]
    if_match: list[str] | None
    created_at: datetime
    attempts: int
    deferrals: int


_WAITING = text("""
    SELECT post_id, changes, if_match, created_at, attempts, deferrals FROM edits
    WHERE post_id = ANY(CAST(:ids AS text[])) AND status = 'queued' ORDER BY post_id, seq""")
_AT_ONCE = 100


def waiting(tx: Connection, post_ids: Iterable[str]) -> Generator[Waiting, None, None]:
    """All queued edits of these posts as of one moment, post by post in their order, some in memory at a time."""
    options = {"stream_results": True, "max_row_buffer": _AT_ONCE}
    found = tx.execute(_WAITING, {"ids": array(list(post_ids))}, execution_options=options)
    with found:
        for row in found:
            yield Waiting._make(row)


class Moved(NamedTuple):
    """One post's move, by its ordinal in the job. `at` aware, UTC."""

    ordinal: int
    post_id: str
    at: datetime
    timezone: str | None


def _shown(instant: str) -> str:
    """An instant as `times.format_instant` writes it. Our sessions are in UTC."""
    return rf"""to_char({instant}, 'YYYY-MM-DD"T"HH24\:MI\:SS"Z"')"""


def _time(instant: str) -> str:
    return f"""CAST('{{"scheduledTime":"' || {_shown(instant)} || '"}}' AS jsonb)"""


def _time_and_zone(instant: str, zone: str) -> str:
    """Those of the two that the move changes."""
    return f"""
        CASE WHEN m.was = m.at THEN '{{}}' ELSE {_time(instant)} END ||
        CASE WHEN m.was_zone IS DISTINCT FROM m.zone THEN jsonb_build_object('timezone', {zone}) ELSE '{{}}' END"""


_NOTHING = "'{}'"
_INPUT = """
        SELECT u.id, u.ordinal, u.zone, timestamptz 'epoch' + u.microseconds * interval '1 microsecond' AS at
        FROM unnest(CAST(:ids AS text[]), CAST(:ordinals AS integer[]), CAST(:instants AS bigint[]),
            CAST(:zones AS text[])) AS u(id, ordinal, microseconds, zone)"""


def _audit(before: str, after: str) -> str:
    """One final row of `edits` for each row of m. It says what the job set even where that was so before."""
    return f"""
    INSERT INTO edits (id, post_id, workspace_id, changes, api_key_id, requested_by, request_id, reschedule_id,
        created_at, status, started_at, finalized_at, revision, before, after)
    SELECT :prefix || lpad(CAST(m.ordinal AS text), 7, '0'), m.id, :workspace,
        CAST('{{"move":{{"scheduledTime":"' || {_shown("m.at")} || '","timezone":'
            || coalesce('"' || m.zone || '"', 'null') || '}}}}' AS jsonb),
        :api_key, :requested_by, :request, :job, :now, 'applied', :now, clock_timestamp(), m.revision,
        {before}, {after}
    FROM m"""


def _moving(zone: str, before: str, after: str) -> str:
    """The same as `posts.write_posts` for an edit that moves a post, with one exception. A post that waits for its
    render keeps its mark, which belongs to the render and not to the time.
    """
    return f"""
    WITH r AS ({_INPUT}
    ), m AS (
        UPDATE posts p SET scheduled_time = r.at, timezone = {zone}, revision = p.revision + 1,
            schedule_revision = p.schedule_revision + CAST(p.scheduled_time <> r.at AS integer),
            retry_at = CASE WHEN p.scheduled_time = r.at THEN p.retry_at END,
            enqueued_revision = CASE WHEN p.status <> 'generated' OR p.scheduled_time = r.at THEN p.enqueued_revision
                                     WHEN r.at <= :soon THEN p.schedule_revision + 1 END,
            enqueued_at = CASE WHEN p.status <> 'generated' OR p.scheduled_time = r.at THEN p.enqueued_at
                               WHEN r.at <= :soon THEN clock_timestamp() END
        FROM r
        WHERE p.id = r.id AND p.status IN ('pending_render', 'generated') AND p.deleted_at IS NULL
            AND p.claim_kind IS DISTINCT FROM 'publish'
        RETURNING p.id, r.ordinal, OLD.scheduled_time AS was, NEW.scheduled_time AS at, OLD.timezone AS was_zone,
            NEW.timezone AS zone, NEW.revision
    ){_audit(before, after)}"""


_SHIFT = text(_moving("p.timezone", _time("m.was"), _time("m.at")))
_PLACE = text(_moving("r.zone", _time_and_zone("m.was", "m.was_zone"), _time_and_zone("m.at", "m.zone")))
_STAY = text(f"""
    WITH r AS ({_INPUT}
    ), m AS (SELECT r.*, p.revision FROM r JOIN posts p ON p.id = r.id){_audit(_NOTHING, _NOTHING)}""")


def move(tx: Connection, job: Work, moves: Sequence[Moved], *, now: datetime, soon: datetime) -> None:
    """Move locked posts and write their audit rows, in one statement; StaleWriteError if one was not as locked.

    `now` is the moment of acceptance; what goes live until `soon` is marked as sent for: enqueue it below the commit.
    """
    # A shift keeps each post's zone; every other job sets it.
    if moves:
        statement = _SHIFT if "shift" in job.plan else _PLACE
        counted(tx.execute(statement, _given(job, moves, now) | {"soon": soon}).rowcount, len(moves), "move")


def stay(tx: Connection, job: Work, stays: Sequence[Moved], *, now: datetime) -> None:
    """The audit rows of posts that stand already where the job wants them: applied, and nothing changes."""
    if stays:
        counted(tx.execute(_STAY, _given(job, stays, now)).rowcount, len(stays), "stay")


def _given(job: Work, moves: Sequence[Moved], now: datetime) -> dict[str, Any]:
    return {
        "ids": array([one.post_id for one in moves]),
        "ordinals": _literal([str(one.ordinal) for one in moves]),
        "instants": _literal([str(_microseconds(one.at)) for one in moves]),
        "zones": _literal([one.timezone or "NULL" for one in moves]),
        "prefix": audit_id(job.id, 0)[:-7],
        "workspace": job.workspace_id,
        "api_key": job.api_key_id,
        "requested_by": job.requested_by,
        "request": job.request_id,
        "job": job.id,
        "now": now,
    }


def _literal(values: Sequence[str]) -> str:
    """An array of numbers, or of names that need no quotes."""
    return "{" + ",".join(values) + "}"


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")


def _microseconds(at: datetime) -> int:
    """Since 1970: as a number it costs PostgreSQL a tenth of what a text does."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
