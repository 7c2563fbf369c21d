"""The bodies of bulk jobs, for the OpenAPI document alone, as api/models/schemas.py has those of everything else."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.models.schemas import DURATION, INSTANT, Body, Id, Instant, LocalTime, Platform, Shown, Zone, absent
from shared.domain import reschedule_jobs, reschedule_requests, reschedules, times


class Job(Shown):
    id: Id
    status: reschedule_jobs.JobStatus
    dry_run: bool
    total: int | None = Field(description="null until the job's first work has frozen which posts it means")
    applied: int
    skipped: int
    failed: int
    created_at: Instant
    finished_at: Instant | None
    error: str = Field(default=absent, description="only of a job that failed")


class JobPage(Shown):
    data: list[Job]
    has_more: bool
    next_cursor: str | None


class Result(Shown):
    post_id: str
    outcome: reschedules.Outcome
    before: Instant | None
    after: Instant | None
    reason: str | None = Field(description="why it was not moved: " + ", ".join(reschedules.Reason))


class ResultPage(Shown):
    data: list[Result]
    has_more: bool
    next_cursor: str | None


_Ids = Annotated[
    list[Id],
    Field(min_length=1, max_length=reschedule_requests.MOST_ITEMS, json_schema_extra={"uniqueItems": True}),
]


class Filter(Body):
    """Which posts: all that fulfil every condition."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "if": {"required": ["all"]},
            "then": {"maxProperties": 1},
        }
    )

    all: Literal[True] = Field(default=absent, description="every waiting post; alone")
    account_ids: _Ids = absent
    platform: Platform = absent
    scheduled_from: Annotated[str, Field(pattern=INSTANT, description="UTC, inclusive")] = absent
    scheduled_to: Annotated[str, Field(pattern=INSTANT, description="UTC, exclusive")] = absent
    post_ids: _Ids = absent


class SpreadBetween(Body):
    """Evenly from one local time to another, both in this zone."""

    from_: LocalTime = Field(alias="from")
    to: LocalTime
    timezone: Zone


class Item(Body):
    post_id: Id
    scheduled_time: LocalTime
    timezone: Zone


def _only(*names: str) -> JsonDict:
    """These and no others of the fields that say what a job is made of."""
    others = [name for name in ("filter", "shift", "spread", "items") if name not in names]
    return {"required": list(names), "not": {"anyOf": [{"required": [name]} for name in others]}}


class NewJob(Body):
    """Exactly one of shift, spread and items; a filter with the first two."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_only("filter", "shift"), _only("filter", "spread"), _only("items")]}
    )

    filter: Filter = absent
    shift: str = Field(default=absent, pattern=DURATION, description=times.DURATION_RULE, examples=["P1D", "-PT90M"])
    spread: SpreadBetween = absent
    items: Annotated[list[Item], Field(min_length=1, max_length=reschedule_requests.MOST_ITEMS)] = absent
    dry_run: bool = Field(default=absent, description="the same job with the same results, and no post is changed")


class Nothing(Body):
    """No fields."""
