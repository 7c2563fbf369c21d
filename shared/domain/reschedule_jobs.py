"""A bulk job as clients see it: its states, what each allows, the results of its posts (docs/bulk.md). Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from shared.domain import times
from shared.domain.errors import Conflict, TooManyJobs


class JobStatus(StrEnum):
    """The statuses of a job. `failed`: a chunk killed its worker again and again. Earlier chunks were moved."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"
    FAILED = "failed"


LIVE: Final = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it. Times aware, UTC; `total` is None until its posts are frozen. `unchanged`: those of the
    applied posts that were there already; None where a version before this one made the job.
    """

    id: str
    status: JobStatus
    dry_run: bool
    total: int | None
    applied: int
    unchanged: int | None
    skipped: int
    failed: int
    created_at: datetime
    finished_at: datetime | None
    error: str | None = None

    @property
    def finished(self) -> bool:
        return self.status not in LIVE

    @property
    def moved(self) -> int:
        """How many posts have another time or zone by it."""
        return self.applied - (self.unchanged or 0)

    def public(self) -> dict[str, Any]:
        """The resource of /v1/reschedules/{id}. `error` only where there is one."""
        shown = {
            "id": self.id,
            "status": self.status.value,
            "dryRun": self.dry_run,
            "total": self.total,
            "applied": self.applied,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "failed": self.failed,
            "createdAt": times.format_instant(self.created_at),
            "finishedAt": times.format_instant(self.finished_at) if self.finished_at else None,
        }
        return shown if self.error is None else shown | {"error": self.error}


LIVE_AT_MOST: Final = 20
"""Jobs of one workspace that wait or run at a time."""


def cannot_start(live: int) -> TooManyJobs | None:
    """One more job, beside `live` of its workspace's that have not ended."""
    return TooManyJobs(LIVE_AT_MOST) if live >= LIVE_AT_MOST else None


def cannot_cancel(job: Job) -> Conflict | None:
    """Only a job that has not ended can be canceled."""
    return Conflict(f"The job is {job.status.value} already; there is nothing left to cancel") if job.finished else None


def cannot_revert(job: Job, *, reverted_by: str | None) -> Conflict | None:
    """Any ended job that was no dry run, once."""
    if job.dry_run:
        return Conflict("A dry run moved nothing; there is nothing to revert")
    if not job.finished:
        return Conflict(f"The job is still {job.status.value}; wait for its end or cancel it, then revert it")
    if reverted_by is not None:
        return Conflict(f"The job has been reverted already, by {reverted_by}; revert that one to have its moves again")
    return None


class Result(NamedTuple):
    """What became of one post. `ordinal`: its place in the job, which is the order of the results."""

    ordinal: int
    post_id: str
    outcome: str
    before: str | None
    after: str | None
    reason: str | None
    warning: str | None = None

    def public(self) -> dict[str, Any]:
        return dict(zip(RESULT_FIELDS, self[1:], strict=True))


RESULT_FIELDS: Final = ("postId", "outcome", "before", "after", "reason", "warning")


MOST_ORDINALS: Final = 9_999_999


def audit_id(job_id: str, ordinal: int) -> str:
    """The id of the audit row of one post of a job. It has the shape of an edit's id and follows from job and ordinal.
    So it is found without another index, and there cannot be two. Ordinals have seven digits, so that ids sort alike.
    """
    return f"edit_{job_id.rpartition('_')[2][:19]}{ordinal:07}"
