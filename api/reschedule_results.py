"""Routes of the results of bulk jobs: pages, or all of them as one file (docs/bulk.md)."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.context import Context, Here, Mover
from api.http import headers, pagination, problems
from api.models import spreadsheets
from api.models.openapi import carries, takes
from api.models.reschedules import ResultPage, ResultsQuery
from api.reschedules import job_of
from shared.domain.errors import Faults
from shared.domain.reschedule_jobs import RESULT_FIELDS, Job, Result
from shared.domain.reschedules import Outcome
from shared.store import reschedules as store

router = APIRouter(tags=["reschedules"], responses=problems.LOCKED)


@router.get(
    "/v1/reschedules/{job_id}/results",
    response_model=ResultPage,
    response_description="A page of results, or all of them as CSV",
    responses={200: carries("Vary", content={"text/csv": {"schema": {"type": "string"}}}), **problems.refuses(404)},
    openapi_extra=takes("Accept"),
)
async def list_results(
    job_id: str, query: Annotated[ResultsQuery, Query()], request: Request, context: Here, owner: Mover
) -> Response:
    """What became of each post of a job. `Accept: text/csv` gets all results in one file, instead of pages."""
    asked = pagination.read(query, request, owner.workspace_id, await context.seal(), pagination.BY_NUMBER)
    job = await job_of(context, owner, job_id)
    outcome = Outcome(asked.filters["outcome"]) if "outcome" in asked.filters else None
    vary = {"Vary": "Accept"}
    if headers.likes_better(request.headers.getlist("accept"), "text/csv", "application/json"):
        _refuse_paging(request)
        vary["Content-Disposition"] = f'attachment; filename="{job.id}.csv"'
        return StreamingResponse(csv_lines(context, job, outcome), headers=vary, media_type="text/csv; charset=utf-8")
    start_at = asked.after[0] if asked.after else 0
    found = await context.read(store.results, job, start_at, asked.limit + 1, outcome)
    page = found[: asked.limit]
    next_place = (page[-1].ordinal + 1,) if len(found) > asked.limit else None
    return asked.answer([one.public() for one in page], next_place, vary)


def _refuse_paging(request: Request) -> None:
    faults = Faults()
    for name in ("limit", "cursor"):
        if name in request.query_params:
            faults.add("invalid_request", name, f"{name} is for pages; a CSV holds all results, leave it out")
    faults.raise_if_any()


async def csv_lines(context: Context, job: Job, outcome: Outcome | None) -> AsyncIterator[bytes]:
    """All results, chunk by chunk, each in a transaction of its own: a slow reader keeps no transaction open.

    If PostgreSQL goes away meanwhile, the connection is cut off, so that half a file is not taken for a whole one.
    """
    yield spreadsheets.lines([RESULT_FIELDS])
    for chunk in await context.read(store.bounds, job.id):
        found: list[Result] = await context.read(store.chunk_results, job, chunk, 0, outcome)
        if found:
            yield spreadsheets.lines(one[1:] for one in found)
