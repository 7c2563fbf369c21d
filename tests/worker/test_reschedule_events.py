"""The end of a bulk job is told: an event of its own, written in the commit that ends the job, and delivered."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.domain.service_answers import Reply
from shared.domain.times import format_instant
from shared.settings import settings
from shared.store import job_pages
from shared.store import reschedules as store
from shared.store import webhooks as webhooks_store
from shared.store.acts import Actor
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, locked_by_a_person, posts
from tests.worker.fake_services import FakeServices, fake_services
from tests.worker.receiver import deliver, engine, events
from worker import reschedule, rescue

__all__ = ["engine", "fake_services"]

BODY = {"filter": ALL, "shift": "P1D"}


def canceled(job: str) -> None:
    with transaction() as tx:
        assert store.cancel(tx, factories.WORKSPACE, job) is not None


def canceled_by_an_operator(job: str) -> None:
    with transaction() as tx:
        assert job_pages.cancel(tx, Actor("kim"), factories.WORKSPACE, job, "queued")


def failed(job: str) -> None:
    with transaction() as tx:
        store.fail(tx, job, "Gave up")


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("end", [jobs.run, canceled, canceled_by_an_operator, failed])
def test_each_end_of_a_job_is_told_once_with_its_counters(
    engine: Engine, end: Any, count: int, *, dry_run: bool
) -> None:
    posts(engine, count)
    job = jobs.make(BODY | {"dryRun": dry_run})
    end(job)
    for again in (reschedule.run_chunk, failed):
        again(job)
    [told] = events(engine, job)
    ended = jobs.job(job)
    assert ended.finished_at is not None
    assert (told.type, told.workspace_id) == ("reschedule.finished", factories.WORKSPACE)
    assert told.data == {
        "workspaceId": factories.WORKSPACE,
        "rescheduleId": job,
        "status": ended.status.value,
        "dryRun": dry_run,
        "total": ended.total,
        "applied": ended.applied,
        "unchanged": ended.unchanged,
        "skipped": 0,
        "failed": 0,
        "finishedAt": format_instant(ended.finished_at),
    }
    assert ended.applied == (count if end is jobs.run else 0)


def test_the_task_that_ends_a_job_rings_for_its_event(engine: Engine) -> None:
    assert jobs.run(jobs.make(BODY))[-1].follow_ups.webhooks == [job_of(engine)]
    ids = posts(engine, 2)
    *_, last = jobs.run(jobs.make(BODY))
    assert last.follow_ups.webhooks == [*sorted(ids), job_of(engine)]


def job_of(engine: Engine) -> str:
    """The job of the newest event."""
    told = events(engine)[-1]
    assert told.type == "reschedule.finished"
    return str(told.post_id)


def test_a_job_that_waits_for_a_locked_post_is_told_of_when_that_post_is_moved(engine: Engine) -> None:
    [post] = posts(engine, 1)
    job = jobs.make(BODY)
    with locked_by_a_person(engine, post):
        for _ in range(3):
            reschedule.run_chunk(job)
        assert events(engine, job) == []
    jobs.run(job)
    assert [(one.data["applied"], one.data["unchanged"]) for one in events(engine, job)] == [(1, 0)]


def test_the_event_and_the_end_stand_or_fall_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    posts(engine, 1)
    job, record = jobs.make(BODY), webhooks_store.record

    def dies(tx: Any, given: Any) -> list[str]:
        told = record(tx, given)
        if given and given[0].type == "reschedule.finished":
            raise ZeroDivisionError
        return told

    with monkeypatch.context() as patch:
        patch.setattr(webhooks_store, "record", dies)
        with pytest.raises(ZeroDivisionError):
            jobs.run(job)
    assert (events(engine, job), jobs.counts(job)[0]) == ([], "running")
    jobs.run(job)
    assert (len(events(engine, job)), jobs.counts(job)[0]) == (1, "done")


def test_the_event_is_delivered_with_a_sequence_and_found_by_rescue(
    engine: Engine, fake_services: FakeServices
) -> None:
    job = jobs.done(BODY)
    [told] = events(engine, job)
    fake_services.replies = [Reply("unknown", message="timed out")]
    assert deliver(job)[0] == {"queued": 1}
    with engine.begin() as tx:
        tx.exec_driver_sql("UPDATE webhook_events SET lease_expires_at = now() - interval '1 s'")
    assert rescue._webhooks() == 1
    assert deliver(job)[0] == {"delivered": 1}
    first, second = (json.loads(asked.body) for asked in fake_services.asked)
    assert first == second
    assert first["data"] == told.data | {"sequence": told.seq}
    assert first["type"] == "reschedule.finished"


@pytest.mark.usefixtures("engine")
def test_without_a_receiver_nothing_is_written_and_nothing_is_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDRAFT_WEBHOOK_URL")
    settings.cache_clear()
    *_, last = jobs.run(jobs.make(BODY))
    assert last.follow_ups.webhooks == []
