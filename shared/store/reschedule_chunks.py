"""The work on a bulk job: taking one of its chunks, and recording its outcomes (docs/bulk.md).

A task that works on a chunk holds the chunk's name as an advisory lock. So several chunks of a job are moved at once,
and a doubled message takes another chunk or none. Order of the locks: a chunk's name, without waiting; posts in id
order; the job's row last and briefly, to count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain import reschedule_gaps
from shared.domain.ids import first_id
from shared.domain.reschedule_jobs import MOST_ORDINALS, audit_id
from shared.domain.times import Duration
from shared.store import counted


@dataclass(frozen=True, slots=True)
class Work:
    """A live job. `total` and `chunks` are None until its posts are frozen; `attempts` at the freezing. `gap`: how near
    to each other it may put the posts of an account.
    """

    id: str
    workspace_id: str
    api_key_id: str
    requested_by: str
    request_id: str | None
    dry_run: bool
    plan: dict[str, Any]
    filter: dict[str, Any] | None
    total: int | None
    chunks: int | None
    chunks_done: int
    contended: int
    attempts: int
    gap: Duration | None = None


def _work(row: Sequence[Any]) -> Work:
    found = Work(*row)
    plan, gap = reschedule_gaps.split(found.plan)
    return found if gap is None else replace(found, plan=plan, gap=gap)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some posts of a job. `contended`: indexes of the posts that an earlier pass left, because
    another session had them locked.
    """

    number: int
    first: int
    done: bool
    post_ids: list[str]
    aims: list[Any] | None
    outcomes: list[list[Any]]
    contended: list[int]
    attempts: int


_JOB_COLUMNS = """j.id, j.workspace_id, j.api_key_id, j.requested_by, j.request_id, j.dry_run, j.plan, j.filter,
    j.total, j.chunks, j.chunks_done, j.held, j.attempts"""
_JOB_WIDTH = 13
_LIVE = "j.status IN ('queued', 'running')"
_WORK = text(f"SELECT {_JOB_COLUMNS} FROM reschedules j WHERE j.id = :id AND {_LIVE}")


def work(tx: Connection, job_id: str) -> Work | None:
    """A live job. None for a job that is final or unknown."""
    row = tx.execute(_WORK, {"id": job_id}).one_or_none()
    return _work(row) if row else None


_NAME = "pg_try_advisory_xact_lock(7340, hashtext(CAST(:id AS text) || '/' || {}))"
# The list is made first: only the names that are tried one after the other are locked, not those of all open chunks.
# One job has the lane, and is alone in it. The id of an edit begins with the time at which the edit came. The ids of
# the job's own audit rows begin with the job's time, so `since` lies behind them.
_TAKE_NEXT = text(f"""
    WITH open AS MATERIALIZED (
        SELECT number FROM reschedule_chunks WHERE reschedule_id = :id AND NOT done ORDER BY number LIMIT 16
    ), taken AS MATERIALIZED (SELECT number FROM open WHERE {_NAME.format("number")} LIMIT 1)
    SELECT number, NOT pg_try_advisory_xact_lock(7341, 0),
        (SELECT seq FROM edits WHERE status = 'queued' ORDER BY post_id, seq LIMIT 1) IS NOT NULL
            OR EXISTS (SELECT FROM edits WHERE id > :since AND reschedule_id IS NULL)
    FROM taken""")
_TAKE = text(f"SELECT {_NAME.format('CAST(:number AS integer)')}")

FREEZING: Final = -1
"""The name under which a job's posts are frozen."""
FINISHING: Final = -2
"""The name under which a job is finished whose posts are all decided."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A chunk that is ours until the transaction ends. `beside`: another chunk is at work, of this job or another one;
    `edits_come`: single edits of clients wait, or came recently.
    """

    number: int
    beside: bool
    edits_come: bool


def take_next(tx: Connection, job_id: str, edits_since: float) -> Taken | None:
    """Take the first open chunk of a job that no other task works on. Read it in the NEXT statement: this one may have
    a snapshot from before the last holder's commit.

    `edits_since`: seconds since 1970. This machine's clock may say it: it guides how hard to work and decides nothing.
    """
    since = max(first_id("edit", edits_since), audit_id(job_id, MOST_ORDINALS))
    row = tx.execute(_TAKE_NEXT, {"id": job_id, "since": since}).one_or_none()
    return Taken(*row) if row else None


def take(tx: Connection, job_id: str, number: int) -> bool:
    """Take one chunk, or the freezing. False if another task has it."""
    return bool(tx.execute(_TAKE, {"id": job_id, "number": number}).scalar_one())


_CHUNK = text(f"""
    SELECT {_JOB_COLUMNS}, c.number, c.first, c.done, c.post_ids, c.aims, c.outcomes, c.held, c.attempts
    FROM reschedules j JOIN reschedule_chunks c ON c.reschedule_id = j.id AND c.number = :number
    WHERE j.id = :id AND {_LIVE}""")


def read(tx: Connection, job_id: str, number: int) -> tuple[Work, Chunk] | None:
    """A live job and one of its chunks, which we have taken."""
    row = tx.execute(_CHUNK, {"id": job_id, "number": number}).one_or_none()
    if row is None:
        return None
    values = tuple(row)
    return _work(values[:_JOB_WIDTH]), Chunk(*values[_JOB_WIDTH:])


_CONTENDED = text("SELECT held FROM reschedule_chunks WHERE reschedule_id = :id AND number = :number")


def contended(tx: Connection, job_id: str, number: int) -> list[int]:
    """The posts of one chunk that are still to be decided."""
    found: list[int] = tx.execute(_CONTENDED, {"id": job_id, "number": number}).scalar_one()
    return found


# In no order: where others hold thousands of posts for long, each task looks at other ones.
_CONTENDED_CHUNKS = text("""
    SELECT number FROM reschedule_chunks WHERE reschedule_id = :id AND held <> '{}' ORDER BY random() LIMIT :limit""")


def contended_chunks(tx: Connection, job_id: str, limit: int) -> list[int]:
    """Chunks with posts that are still to be decided."""
    return list(tx.execute(_CONTENDED_CHUNKS, {"id": job_id, "limit": limit}).scalars())


# -- Attempts: only a death costs one, as with edits (docs/lifecycle.md).

_COUNT = text("""
    UPDATE reschedule_chunks SET attempts = attempts + 1 WHERE reschedule_id = :id AND number = :number
    RETURNING attempts""")
_COUNT_FREEZING = text("""
    UPDATE reschedules SET attempts = attempts + 1 WHERE id = :id AND total IS NULL RETURNING attempts""")
_GIVE_BACK = text("""
    UPDATE reschedule_chunks SET attempts = attempts - 1
    WHERE reschedule_id = :id AND number = :number AND attempts > :before""")
_GIVE_BACK_FREEZING = text("""
    UPDATE reschedules SET attempts = attempts - 1 WHERE id = :id AND total IS NULL AND attempts > :before""")


def count_attempt(relaxed: Connection, job_id: str, number: int) -> int:
    """Write down that a chunk or the freezing begins, on a connection of its own; how often it has."""
    statement = _COUNT_FREEZING if number == FREEZING else _COUNT
    attempts: int | None = relaxed.execute(statement, {"id": job_id, "number": number}).scalar_one_or_none()
    return attempts or 0


def give_back_attempt(relaxed: Connection, job_id: str, number: int, before: int) -> None:
    """The chunk, or the freezing, ended without a death. `before`: its attempts before it was counted; one that has no
    more than these never was.
    """
    statement = _GIVE_BACK_FREEZING if number == FREEZING else _GIVE_BACK
    relaxed.execute(statement, {"id": job_id, "number": number, "before": before})


# -- What is written down of a chunk, in the same transaction.

_RECORD = text("""
    UPDATE reschedule_chunks SET done = true, attempts = 0, outcomes = outcomes || CAST(:outcomes AS jsonb),
        held = CAST(:held AS integer[])
    WHERE reschedule_id = :id AND number = :number AND done = :from_done AND held = CAST(:from_held AS integer[])""")
_RECORD_DONE = text("""
    UPDATE reschedule_chunks SET done = true WHERE reschedule_id = :id AND number = :number AND NOT done""")

OutcomeRow = tuple[int, str, str | None, str | None, str | None]
"""What became of a post that has no audit row: its index in the chunk, outcome, before, after, reason."""


def record(tx: Connection, job_id: str, of: Chunk, outcomes: Sequence[OutcomeRow], left: Sequence[int]) -> None:
    """The chunk is done: outcomes that have no audit row, and which posts are still to be decided."""
    given: dict[str, Any] = {"id": job_id, "number": of.number}
    statement = _RECORD_DONE
    if outcomes or left or of.done:
        statement = _RECORD
        given |= {
            "outcomes": to_json(outcomes).decode(),
            "held": list(left),
            "from_done": of.done,
            "from_held": of.contended,
        }
    counted(tx.execute(statement, given).rowcount, 1, "record")


_ADVANCE = text("""
    UPDATE reschedules SET chunks_done = chunks_done + :chunks, held = held + :held, applied = applied + :applied,
        skipped = skipped + :skipped, failed = failed + :failed, unchanged = unchanged + :unchanged,
        touched_at = clock_timestamp()
    WHERE id = :id AND status = 'running'
    RETURNING chunks, chunks_done, held""")


@dataclass(frozen=True, slots=True)
class Step:
    """What a transaction adds to its job's counters. `chunks`: 1, or 0 for posts of a chunk that was done before;
    `unchanged`: those of the applied ones that were there already.
    """

    chunks: int
    contended: int
    applied: int = 0
    skipped: int = 0
    failed: int = 0
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the job stands after a step."""

    chunks: int
    chunks_done: int
    contended: int

    @property
    def all_decided(self) -> bool:
        return self.chunks_done == self.chunks and not self.contended


def advance(tx: Connection, job_id: str, step: Step) -> Progress | None:
    """Count a step in the transaction that made it. None if the job was ended meanwhile: then roll back, nothing moves
    after a cancel was answered.
    """
    given = {
        "id": job_id,
        "chunks": step.chunks,
        "held": step.contended,
        "applied": step.applied,
        "skipped": step.skipped,
        "failed": step.failed,
        "unchanged": step.unchanged,
    }
    row = tx.execute(_ADVANCE, given).one_or_none()
    return Progress(*row) if row else None
