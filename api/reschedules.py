"""Routes of /v1/reschedules: bulk jobs, their progress, their results, cancel and revert (docs/bulk.md)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.context import Context, Here, Mover, storable
from api.http import headers, pagination, problems, reading
from api.http.headers import Preference
from api.http.json_answer import JsonAnswer
from api.http.pagination import Paging
from api.http.problems import request_id
from api.http.reading import BULK_BODY_LIMIT, JSON_TYPES, REPLAYED, NoBody, NoQuery
from api.models.openapi import carries, takes
from api.models.reschedules import Job as JobShown
from api.models.reschedules import JobPage, Nothing
from api.models.reschedules import NewJob as NewJobBody
from shared.domain import reschedule_gaps, reschedule_jobs, reschedule_requests, reschedules
from shared.domain.errors import Conflict, IdempotencyKeyReused, NotFound, RedraftError, TooManyJobs, Unavailable
from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import Job
from shared.store import idempotency as idempotency_store
from shared.store import reschedules as store
from shared.store import webhooks as webhooks_store
from shared.store.idempotency import Repeat
from shared.store.keys import Key
from shared.store.reschedules import NewJob

router = APIRouter(tags=["reschedules"], responses=problems.LOCKED)

UNSURE = (
    "The job may have been started; look at GET /v1/reschedules before you send it again, "
    "or repeat the request with the same Idempotency-Key"
)
UNSURE_CANCEL = "The job may have been canceled; look at GET /v1/reschedules/{id}, or cancel it again"

Make = Callable[[Connection], NewJob]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request for a new job. `make`: how to make it, or its error, answered only if its Idempotency-Key is new.
    `owner`: who the job belongs to; where an operator asks, the key of an earlier job with the operator's name.
    """

    owner: Key
    make: Make | RedraftError
    repeat: Repeat | None = None
    preference: Preference = headers.NO_PREFERENCE


@dataclass(frozen=True, slots=True)
class Made:
    """The job, and whether an earlier request with the same Idempotency-Key made it."""

    job: Job
    replayed: bool = False


_ANSWERED = ("Location", "Preference-Applied", "Idempotent-Replayed")
_STARTED: dict[int | str, dict[str, Any]] = {
    200: carries(*_ANSWERED, model=JobShown, description="You asked to wait, and the job has ended"),
    202: carries(*_ANSWERED),
}


@router.post(
    "/v1/reschedules",
    status_code=202,
    response_model=JobShown,
    responses={**_STARTED, **problems.refuses(413, 415, 422)},
    openapi_extra=takes("Idempotency-Key", "Prefer", body=NewJobBody),
)
async def create_reschedule(request: Request, context: Here, owner: Mover) -> Response:
    """Start a bulk job that moves many posts, or its dry run. `Prefer: wait=N` waits for its end."""
    content = await reading.read_body(request, BULK_BODY_LIMIT)
    reading.check_media_type(request, JSON_TYPES)
    return await _started(context, await context.parse(_wanted, request, content, owner, context.config.wait_max))


@router.post(
    "/v1/reschedules/{job_id}/revert",
    status_code=202,
    response_model=JobShown,
    response_description="The inverse job",
    responses={**_STARTED, **problems.refuses(404, 409, 413, 415, 422)},
    openapi_extra=takes("Idempotency-Key", "Prefer", body=Nothing),
)
async def revert_reschedule(job_id: str, request: Request, context: Here, owner: Mover, body: NoBody) -> Response:
    """Start the inverse job: posts that still have the time that the job gave them get their old time back."""
    repeat = reading.repeat_of(request, owner.id, body)
    make: Make | RedraftError = reverting(job_id, owner)
    preference = headers.NO_PREFERENCE
    try:
        reading.check_query(request)
        preference = headers.prefer(request, context.config.wait_max)
    except RedraftError as problem:
        make = problem
    return await _started(context, Wanted(owner, make, repeat, preference))


@router.post(
    "/v1/reschedules/{job_id}/cancel",
    response_model=JobShown,
    responses=problems.refuses(404, 409, 413, 415),
    openapi_extra=takes(body=Nothing),
)
async def cancel_reschedule(job_id: str, context: Here, owner: Mover, _body: NoBody, _: NoQuery) -> Response:
    """End a job before its next chunk."""
    if not storable(job_id):
        raise NotFound.reschedule(job_id)
    job = await context.write(cancel, owner.workspace_id, job_id, unsure=UNSURE_CANCEL.format(id=job_id))
    ring_for_end(context, job_id)
    return JsonAnswer(job.public())


@router.get("/v1/reschedules", response_model=JobPage)
async def list_reschedules(
    query: Annotated[Paging, Query()], request: Request, context: Here, owner: Mover
) -> Response:
    """Bulk jobs, newest first."""
    asked = pagination.read(query, request, owner.workspace_id, await context.seal(), pagination.BY_TIME_AND_ID)
    jobs = await context.read(store.jobs, owner.workspace_id, asked.limit + 1, asked.after)
    page = jobs[: asked.limit]
    next_place = (page[-1].created_at, page[-1].id) if len(jobs) > asked.limit else None
    return asked.answer([job.public() for job in page], next_place)


@router.get(
    "/v1/reschedules/{job_id}",
    response_model=JobShown,
    responses={200: carries("Preference-Applied"), **problems.refuses(404)},
    openapi_extra=takes("Prefer"),
)
async def get_reschedule(job_id: str, request: Request, context: Here, owner: Mover, _: NoQuery) -> Response:
    """One bulk job, cheap to poll. `Prefer: wait=N` waits for its end."""
    preference = headers.prefer(request, context.config.wait_max)
    job = await _waited_for(context, owner.workspace_id, await job_of(context, owner, job_id), preference)
    return JsonAnswer(job.public(), headers=preference.applied(answered_async=False))


def _wanted(request: Request, content: bytes, owner: Key, wait_max: float) -> Wanted:
    """What a body asks for. Call it in a thread: 2 MiB take longer to parse than other requests should wait."""
    body = reading.parse_json(content)
    repeat = reading.repeat_of(request, owner.id, body)
    make: Make | RedraftError
    preference = headers.NO_PREFERENCE
    try:
        reading.check_query(request)
        preference = headers.prefer(request, wait_max)
        make = _new(reschedule_requests.parse_request(body), owner)
    except RedraftError as problem:
        if repeat is None:
            raise
        make = problem
    return Wanted(owner, make, repeat, preference)


def _new(asked: reschedule_requests.Request, owner: Key) -> Make:
    plan, items = reschedule_gaps.stored(asked.plan.stored(), asked.min_gap), asked.items or None
    return lambda _: _job_of(owner, plan=plan, dry_run=asked.dry_run, filter=asked.filter, items=items)


def reverting(job_id: str, owner: Key) -> Make:
    """How to make the inverse of a job. Raises NotFound, Conflict when it is called."""

    def make(tx: Connection) -> NewJob:
        job = store.job(tx, owner.workspace_id, job_id) if storable(job_id) else None
        if job is None:
            raise NotFound.reschedule(job_id)
        conflict = reschedule_jobs.cannot_revert(job, reverted_by=store.reverted_by(tx, job_id))
        if conflict is not None:
            raise conflict
        return _job_of(owner, plan=reschedules.Revert(job_id).stored(), dry_run=False, reverts=job_id)

    return make


def _job_of(owner: Key, *, plan: dict[str, Any], dry_run: bool, **given: Any) -> NewJob:
    """A new job of this key's. Its id sorts by time, and so do the ids of its audit rows."""
    return NewJob(
        new_id("rsch"), owner.workspace_id, owner.id, owner.name, request_id.get(), dry_run, plan, **given
    )  # fmt: skip


async def _started(context: Context, wanted: Wanted) -> Response:
    try:
        made = await context.write(start, wanted, unsure=UNSURE)
    except TooManyJobs as error:
        raise await context.held_back(wanted.owner.id, error) from None
    if not made.replayed:
        context.ring(job_id=made.job.id)
    job = await _waited_for(context, wanted.owner.workspace_id, made.job, wanted.preference)
    status = 200 if wanted.preference.wait is not None and job.finished else 202
    where = {"Location": f"/v1/reschedules/{job.id}"} | wanted.preference.applied(answered_async=status == 202)
    where |= REPLAYED if made.replayed else {}
    return JsonAnswer(job.public(), status, where)


async def _waited_for(context: Context, workspace_id: str, job: Job, preference: Preference) -> Job:
    """The job, once it has ended or the wait that was asked for is over."""
    if job.finished or not preference.wait:
        return job
    await context.job_waiting.wait(job.id, preference.wait, workspace_id)
    try:
        return await context.read(store.job, workspace_id, job.id) or job
    except Unavailable:
        # The job is recorded: an error here would have the client start another one.
        return job


def start(tx: Connection, wanted: Wanted) -> Made:
    """Record a job and keep its Idempotency-Key, or find the job that the first request with it made."""
    if (first := idempotency_store.wait_for(tx, wanted.repeat)) is not None:
        return _repeated(tx, wanted, first.resource)
    if isinstance(wanted.make, RedraftError):
        raise wanted.make
    new = wanted.make(tx)
    full = reschedule_jobs.cannot_start(store.live_of(tx, wanted.owner.workspace_id))
    if full is not None:
        raise full
    job = store.insert_job(tx, new, wanted.repeat)
    if job is not None:
        return Made(job)
    # Another request was first with the revert, or with the key in a process of the version before. The INSERT waited
    # for that request's commit, so its job is visible now.
    if (first := idempotency_store.first(tx, wanted.repeat)) is not None:
        return _repeated(tx, wanted, first.resource)
    raise Conflict("The job is being reverted already")


def _repeated(tx: Connection, wanted: Wanted, job_id: str) -> Made:
    job = store.job(tx, wanted.owner.workspace_id, job_id)
    if job is None:
        raise IdempotencyKeyReused
    return Made(job, replayed=True)


def cancel(tx: Connection, workspace_id: str, job_id: str) -> Job:
    """End a live job. Raises NotFound, Conflict."""
    canceled = store.cancel(tx, workspace_id, job_id)
    if canceled is not None:
        return canceled
    job = store.job(tx, workspace_id, job_id)
    if job is None:
        raise NotFound.reschedule(job_id)
    raise reschedule_jobs.cannot_cancel(job) or Conflict("The job has just ended; there is nothing left to cancel")


async def job_of(context: Context, owner: Key, job_id: str) -> Job:
    """A workspace's job. Raises NotFound."""
    job = await context.read(store.job, owner.workspace_id, job_id) if storable(job_id) else None
    if job is None:
        raise NotFound.reschedule(job_id)
    return job


def ring_for_end(context: Context, job_id: str) -> None:
    """Ring for the event of a job that was canceled, below the commit."""
    if webhooks_store.wanted():
        context.ring(webhooks=[job_id])
