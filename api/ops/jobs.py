"""Bulk jobs on the operators' pages: how far they are, what was not moved and why, cancel and revert."""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from api import reschedule_results, reschedules
from api.context import context_of
from api.ops.forms import form, operator, with_lock_limit
from api.ops.frame import asked, html, named, page, perhaps, read, read_named
from shared.domain import job_words, reschedule_jobs
from shared.domain.reschedule_jobs import Job
from shared.store import acts, job_pages, overview
from shared.store import reschedules as store
from shared.store.acts import Act, Actor
from shared.store.job_pages import Details
from shared.store.keys import Key
from shared.store.overview import JobHistory

PAGE: Final = 50
STALLED: Final = 60
"""Seconds without a step after which no worker is taken to be at work on a job."""

UNSURE: Final = "PostgreSQL did not answer in time. It may have been done: look at the jobs before you try again."
DONE: Final = {
    "canceled": "It is canceled. What it has moved stays moved.",
    "reverts": "This job gives the posts of the other one their old times back.",
}

log = structlog.get_logger(__name__)


@page("/ops/jobs")
async def list_jobs(request: Request) -> Response:
    """Bulk jobs, newest first."""
    before = asked(request, "before")
    found = await read(request, overview.jobs, PAGE + 1, before)
    more = found[PAGE - 1].id if len(found) > PAGE else None
    now = found[0].now if found else None
    return html(request, "jobs.html", now=now, jobs=found[:PAGE], before=before, more=more)


@page("/ops/jobs/{job_id}")
async def show_job(request: Request) -> Response:
    """One bulk job: how far it is, what was not moved and why."""
    return await _page(request, DONE.get(asked(request, "done") or ""))


async def _page(request: Request, notice: str | None = None, kind: str = "good", status: int = 200) -> Response:
    job, details, public = await read_named(request, "bulk job", _job)
    return html(
        request,
        "job.html",
        status,
        now=job.now,
        notice=notice,
        notice_kind=kind,
        job=job,
        moved=public.moved,
        unchanged=public.unchanged,
        details=details,
        which=job_words.which(details.filter, job.kind, job.total),
        not_moved=await perhaps(request, job_pages.not_moved, job.id) if job.skipped or job.failed else [],
        warned=await perhaps(request, job_pages.warned, job.id) if job.applied else None,
        why=job_words.why,
        cannot_revert=reschedule_jobs.cannot_revert(public, reverted_by=details.reverted_by),
        advice=_advice(job),
    )


def _job(tx: Connection, job_id: str) -> tuple[JobHistory, Details, Job] | None:
    job, details = overview.job(tx, job_id), job_pages.details(tx, job_id)
    public = store.job(tx, job.workspace_id, job_id) if job else None
    return (job, details, public) if job and details and public else None


def _advice(job: JobHistory) -> str:
    if job.live and (job.now - job.touched_at).total_seconds() > STALLED:
        return "No worker is working on it: check that a bulk worker runs (redraft doctor)."
    return {
        "queued": "It waits for a bulk worker.",
        "running": "It is at work.",
        "failed": "It failed. Posts that it moved stay moved. The worker's log names the error, in lines attempt_spent "
        "with the job's id; without one the worker was killed. Repair that, then send the job again.",
    }.get(job.status, "It has ended.")


@page("/ops/jobs/{job_id}/results.csv")
async def download(request: Request) -> Response:
    """What became of each post, as a client gets it."""
    *_, job = await read_named(request, "bulk job", _job)
    saved = {"Content-Disposition": f'attachment; filename="{job.id}.csv"'}
    lines = reschedule_results.csv_lines(context_of(request), job, None)
    return StreamingResponse(lines, headers=saved, media_type="text/csv; charset=utf-8")


@page("/ops/jobs/{job_id}/cancel", "POST")
async def cancel(request: Request) -> Response:
    """End a live job before its next chunk."""
    return await _act(request, _cancel)


@page("/ops/jobs/{job_id}/revert", "POST")
async def revert(request: Request) -> Response:
    """Start the inverse of a job that has ended."""
    return await _act(request, _revert)


Acted = tuple[str, str, str | None]
"""The job to show next, what was done, and the job to ring for."""


async def _act(request: Request, act: Callable[[Connection, Actor, str], Acted | None]) -> Response:
    context, actor = context_of(request), operator(request)
    await form(request)
    job_id = named(request, "bulk job")
    acted = await context.write(with_lock_limit, act, actor, job_id, unsure=UNSURE)
    if acted is None:
        return await _page(request, "It has changed since you looked; look again.", "warn", 409)
    shown, done, ring = acted
    log.info("operator_decided", done=done, job_id=job_id, by=actor.name)
    context.ring(job_id=ring)
    if done == "canceled":
        reschedules.ring_for_end(context, job_id)
    return RedirectResponse(f"/ops/jobs/{quote(shown)}?done={done}", 303)


def _cancel(tx: Connection, actor: Actor, job_id: str) -> Acted | None:
    job = overview.job(tx, job_id)
    if job is None or not job_pages.cancel(tx, actor, job.workspace_id, job_id, job.status):
        return None
    return job_id, "canceled", None


def _revert(tx: Connection, actor: Actor, job_id: str) -> Acted | None:
    """Raises Conflict, TooManyJobs."""
    found = _job(tx, job_id)
    if found is None:
        return None
    job, details, _ = found
    owner = Key(details.api_key_id, job.workspace_id, actor.name, frozenset(), None)
    made = reschedules.start(tx, reschedules.Wanted(owner, reschedules.reverting(job_id, owner)))
    acts.record(tx, actor, [Act(acts.REVERT, "job", job_id, job.workspace_id, job.status, {})])
    return made.job.id, "reverts", made.job.id
