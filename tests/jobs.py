"""Bulk jobs for tests: recorded past the API, run to their end in this process."""

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from shared.domain import reschedule_gaps
from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import Job, Result
from shared.domain.reschedule_requests import parse_request
from shared.domain.reschedules import Outcome
from shared.store import reschedules as store
from shared.store.db import transaction
from shared.store.reschedules import NewJob
from tests import factories
from worker import reschedule
from worker.reschedule import Ran


def make(body: dict[str, Any], workspace: str = factories.WORKSPACE) -> str:
    """A queued job, as the API records it; its id."""
    asked = parse_request(body)
    plan = reschedule_gaps.stored(asked.plan.stored(), asked.min_gap)
    return _recorded(plan, workspace, dry_run=asked.dry_run, filter=asked.filter, items=asked.items or None)


def revert(job_id: str) -> str:
    """The inverse job, as the API records it; its id."""
    return _recorded({"revert": job_id}, factories.WORKSPACE, dry_run=False, reverts=job_id)


def _recorded(plan: dict[str, Any], workspace: str, **given: Any) -> str:
    new = NewJob(new_id("rsch"), workspace, factories.KEY_ID, "tests", "req_test", plan=plan, **given)
    with transaction() as tx:
        assert store.insert_job(tx, new) is not None
    return new.id


def run(job_id: str, most: int = 1000) -> list[Ran]:
    """Every task of the job until none follows."""
    ran = [reschedule.run_chunk(job_id)]
    while ran[-1].messages:
        assert len(ran) < most, "the job does not end"
        ran.append(reschedule.run_chunk(job_id))
    return ran


def job(job_id: str, workspace: str = factories.WORKSPACE) -> Job:
    with transaction() as tx:
        found = store.job(tx, workspace, job_id)
    assert found is not None
    return found


def counts(job_id: str) -> tuple[str, int | None, int, int, int]:
    """Status, total, applied, skipped, failed."""
    found = job(job_id)
    return found.status.value, found.total, found.applied, found.skipped, found.failed


def results(job_id: str, start: int = 0, limit: int = 10_000, outcome: Outcome | None = None) -> list[Result]:
    with transaction() as tx:
        return store.results(tx, job(job_id), start, limit, outcome)


def told(job_id: str) -> dict[str, tuple[str, str | None]]:
    """Outcome and reason of each post."""
    return {one.post_id: (one.outcome, one.reason) for one in results(job_id)}


def done(body: dict[str, Any]) -> str:
    """A job that has run to its end; its id."""
    job_id = make(body)
    run(job_id)
    return job_id


def at(engine: Engine, post_id: str) -> datetime:
    with engine.connect() as tx:
        found: datetime = tx.execute(
            text("SELECT scheduled_time FROM posts WHERE id = :id"), {"id": post_id}
        ).scalar_one()
    return found


def audit(engine: Engine, job_id: str) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(text("SELECT * FROM edits WHERE reschedule_id = :id ORDER BY id"), {"id": job_id}))
