"""Bulk jobs as answers show them. The bodies of requests stand in shared/domain/reschedule_requests.py."""

from typing import Annotated, ClassVar

from pydantic import Field, RootModel

from api.http.pagination import Paging
from api.models.answers import InstantShown, JobId, Page, Shown
from shared.domain import reschedule_jobs, reschedules
from shared.domain.bodies import Body, absent
from shared.domain.fields import one_of
from shared.domain.reschedule_gaps import Caution
from shared.domain.reschedule_requests import ItemsJob, ShiftJob, SpreadJob

Unchanged = Annotated[
    int | None,
    Field(
        description="of applied: posts that had that time and zone already; null for a job from before this was counted"
    ),
]


class Job(Shown):
    """A bulk job."""

    id: JobId
    status: reschedule_jobs.JobStatus
    dry_run: bool
    total: int | None = Field(description="null until the job's first work has frozen which posts it means")
    applied: int
    unchanged: Unchanged
    skipped: int
    failed: int
    created_at: InstantShown
    finished_at: InstantShown | None
    error: str = Field(default=absent, description="only of a job that failed")


class JobPage(Page[Job]):
    """A page of jobs."""


class Result(Shown):
    """What became of one post of a job."""

    post_id: str = Field(examples=["post_abc123"])
    outcome: reschedules.Outcome
    before: InstantShown | None
    after: InstantShown | None
    reason: str | None = Field(description="why it was not moved: " + ", ".join(reschedules.Reason))
    warning: Caution | None = Field(
        description="same_minute: the job puts it into the minute of another waiting post of its account; known when "
        "the job is done, and null for jobs with minGap"
    )


class ResultPage(Page[Result]):
    """A page of results."""


class ResultsQuery(Paging):
    """The filter of results."""

    outcome: Annotated[str, one_of(reschedules.Outcome)] = Field(
        default=absent, description="Only posts with this outcome."
    )


class Nothing(Body):
    """No fields."""

    optional: ClassVar[bool] = True


class NewJob(RootModel[ShiftJob | SpreadJob | ItemsJob]):
    """Exactly one of shift, spread and items; a filter with the first two."""
