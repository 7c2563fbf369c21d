"""A bulk job through all its tasks: statements, results, rescue, webhooks."""

from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.domain.reschedules import Outcome
from shared.domain.times import format_instant, format_local, to_local
from shared.settings import settings
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_freezes, reschedule_turns
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, posts
from worker import reschedule, rescue

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def test_a_chunk_takes_a_fixed_number_of_statements_whatever_the_number_of_posts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reschedule_freezes, "CHUNK", 100)
    seen: list[str] = []
    # Where all of them come by, those that SQLAlchemy runs and those that the driver is given.
    execute: Any = psycopg.Cursor.execute

    def noted(cursor: Any, statement: str, *given: Any, **how: Any) -> Any:
        seen.append(statement)
        return execute(cursor, statement, *given, **how)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)

    def statements(count: int) -> int:
        ids = posts(engine, count)
        job = jobs.make({"filter": {"postIds": ids}, "shift": "P1D"})
        reschedule.run_chunk(job)
        seen.clear()
        assert reschedule.run_chunk(job).messages == 0
        return len(seen)

    # Eight for the chunk, and six to end the job.
    assert statements(1) == statements(50) == 14, "\n".join(seen)


def test_results_are_read_in_pages_that_neither_skip_nor_double_while_the_job_runs(engine: Engine) -> None:
    ids = posts(engine, 10)
    with engine.begin() as tx:
        tx.execute(text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = :id"), {"id": ids[4]})
    job = jobs.make({"filter": {"postIds": [*ids, "post_nobody"]}, "shift": "P1D"})
    jobs.run(job)
    whole = jobs.results(job)
    pages, start = [], 0
    while page := jobs.results(job, start, 4):
        pages += page
        start = page[-1].ordinal + 1
    assert pages == whole
    assert len(whole) == 11
    assert [one.outcome for one in whole if one.reason] == ["skipped", "failed"]
    for outcome in Outcome:
        assert jobs.results(job, outcome=outcome) == [one for one in whole if one.outcome == outcome]


def test_live_jobs_say_which_of_them_nobody_works_on(engine: Engine) -> None:
    posts(engine, 1)
    fresh, stalled, ended = (jobs.make({"filter": ALL, "shift": "P1D"}) for _ in range(3))
    jobs.run(ended)
    with engine.begin() as tx:
        tx.execute(
            text("UPDATE reschedules SET touched_at = now() - interval '6s' WHERE id IN (:a, :b)"),
            {"a": stalled, "b": ended},
        )
    with transaction() as tx:
        assert {job.id: job.stalled for job in reschedule_turns.live(tx, 5.0)} == {fresh: False, stalled: True}


def test_rescue_rings_for_jobs_that_nobody_works_on_unless_their_messages_only_wait_their_turn(
    engine: Engine, redis_url: str
) -> None:
    posts(engine, 1)
    fresh, stalled = (jobs.make({"filter": ALL, "shift": "P1D"}) for _ in range(2))
    with redis.Redis.from_url(redis_url) as broker:
        assert rescue._reschedules() == 0
        with engine.begin() as tx:
            tx.execute(
                text("UPDATE reschedules SET touched_at = now() - interval '6s' WHERE id = :id"), {"id": stalled}
            )
        assert (rescue._reschedules(), broker.llen("bulk")) == (1, 1)
        queue.ring_reschedule(fresh)
        assert (rescue._reschedules(), broker.llen("bulk")) == (0, 2)
        broker.delete("bulk")
        with transaction() as freezing:
            assert chunks_store.take(freezing, stalled, chunks_store.FREEZING)
            assert (rescue._reschedules(), broker.llen("bulk")) == (0, 0), "a task works on it"
        assert rescue._reschedules() == 1
    jobs.run(stalled)
    assert jobs.counts(stalled) == ("done", 1, 1, 0, 0)


def test_the_receiver_of_webhooks_is_told_of_every_move_in_the_transaction_that_made_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    settings.cache_clear()
    moved, rezoned, posted = posts(engine, 3)
    before = jobs.at(engine, moved)
    with engine.begin() as tx:
        tx.execute(text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = :id"), {"id": posted})
        edit = factories.edit(tx, moved, {"caption": "drained first"})
    at = {zone: format_local(to_local(jobs.at(engine, rezoned), zone)) for zone in ("Asia/Tokyo",)}
    items = [
        {"postId": moved, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"},
        {"postId": rezoned, "scheduledTime": at["Asia/Tokyo"], "timezone": "Asia/Tokyo"},
        {"postId": posted, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"},
    ]
    job = jobs.make({"items": items})
    ran = jobs.run(job)
    assert [one.follow_ups.webhooks for one in ran] == [[], [moved, moved, job]]
    audit = {row.post_id: row.id for row in jobs.audit(engine, job)}
    with engine.connect() as tx:
        found = tx.execute(text("SELECT type, workspace_id, post_id, data FROM webhook_events ORDER BY seq")).all()
    applied, event, ended = found
    assert (ended.type, ended.post_id) == ("reschedule.finished", job)
    assert (applied.type, applied.data["editId"], applied.data["revision"]) == ("edit.applied", edit, 2)
    assert tuple(event[:3]) == ("post.rescheduled", factories.WORKSPACE, moved)
    assert event[3] == {
        "workspaceId": factories.WORKSPACE,
        "postId": moved,
        "revision": factories.row(engine, "posts", moved).revision,
        "before": format_instant(before),
        "after": "2035-01-01T12:00:00Z",
        "editId": audit[moved],
        "rescheduleId": job,
    }


@pytest.mark.parametrize("count", [3, 0])
def test_a_doubled_message_of_a_new_job_finds_it_frozen_and_comes_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """It read the job while its twin was freezing it, and has the name of the freezing once the twin has committed."""
    posts(engine, count)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    take = chunks_store.take

    def after_the_twin(*given: Any) -> bool:
        monkeypatch.setattr(chunks_store, "take", take)
        assert reschedule.run_chunk(job).outcome == "frozen"
        return take(*given)

    monkeypatch.setattr(chunks_store, "take", after_the_twin)
    doubled = reschedule.run_chunk(job)
    assert (doubled.outcome, doubled.messages, doubled.delay) == ("busy", 1, 0.25)
    jobs.run(job)
    assert jobs.counts(job) == ("done", count, count, 0, 0)


@pytest.mark.parametrize("junk", ["rsch_nobody", "", "rsch_\\'; --"])
@pytest.mark.usefixtures("engine")
def test_a_message_for_a_job_that_is_not_there_is_a_no_op(junk: str) -> None:
    assert reschedule.run_chunk(junk).summary() == {"chunk": "gone"}
