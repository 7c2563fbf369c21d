"""A turn that one job gave to another workspace's: whatever becomes of it, both jobs go on."""

from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from shared.broker import queue
from shared.settings import settings
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_warnings
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import chunks_of_three, moved_once, posts
from tests.worker.test_reschedule_lane import SHIFT, Lane, _other_workspaces, lane, posts_of, status
from worker import reschedule, reschedule_turns, rescue, tasks

__all__ = ["_other_workspaces", "chunks_of_three", "lane"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


@pytest.fixture(autouse=True)
def _none_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reschedule_turns, "_left_alone", {})


def frozen(lane: Lane) -> str:
    """A job of another workspace whose posts are chosen, and whose turn it is. No message of it is on its way."""
    job = jobs.make(SHIFT, "ws_quiet")
    assert reschedule.run_chunk(job).outcome == "frozen"
    untouched(job)
    lane.worked.clear()
    return job


def untouched(job: str) -> None:
    """As if it had not had a turn yet."""
    with transaction() as tx:
        tx.execute(text("UPDATE reschedules SET touched_at = created_at WHERE id = :id"), {"id": job})


@pytest.mark.parametrize("step", ["_freeze", "work"])
def test_a_message_that_finds_its_job_at_work_in_a_turn_that_another_job_gave_comes_back(
    engine: Engine, lane: Lane, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The one that gave its turn relies on that message, and rings no other one for the job."""
    posts(engine, 3)
    ids = posts_of(engine, "ws_quiet", 3)
    job = lane.start(SHIFT, factories.WORKSPACE)
    tasks.run_chunk(lane.messages.popleft())
    other = jobs.make(SHIFT, "ws_quiet") if step == "_freeze" else frozen(lane)
    if step == "work":
        # Its message will have to come back for a locked post.
        person = engine.connect()
        person.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": ids[0]})
    do: Any = getattr(reschedule, step)
    served: list[str] = []

    def meanwhile(*args: Any, **given: Any) -> Any:
        if not served:
            served.append(other)
            tasks.run_chunk(other)
        return do(*args, **given)

    monkeypatch.setattr(reschedule, step, meanwhile)
    lane.worked.clear()
    tasks.run_chunk(lane.messages.popleft())
    assert (lane.worked, served) == ([other], [other]), "the other job was at work when its message came"
    if step == "work":
        person.close()
    lane.run()
    assert {status(engine, one) for one in (job, other)} == {"done"}
    assert moved_once(engine, other, ids)


def test_a_message_that_finds_its_job_being_finished_comes_back(
    engine: Engine, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that finishes it may fail at that, and goes on with its own job."""
    posts(engine, 3)
    ids = posts_of(engine, "ws_quiet", 3)
    job = lane.start(SHIFT, factories.WORKSPACE)
    tasks.run_chunk(lane.messages.popleft())
    other, warn = frozen(lane), reschedule_warnings.warn
    served: list[str] = []

    def deadlock(*given: Any) -> None:
        if not served:
            served.append(other)
            reschedule.run_chunk(job)
            tasks.run_chunk(other)
            raise OperationalError("warn", {}, psycopg.errors.DeadlockDetected())
        warn(*given)

    monkeypatch.setattr(reschedule_warnings, "warn", deadlock)
    tasks.run_chunk(lane.messages.popleft())
    assert served == [other]
    lane.run()
    assert {status(engine, one) for one in (job, other)} == {"done"}
    assert moved_once(engine, other, ids)


def test_a_job_whose_row_is_locked_stops_no_other_workspaces_job(engine: Engine, lane: Lane) -> None:
    ids = posts(engine, 9)
    posts_of(engine, "ws_quiet", 9)
    job = lane.start(SHIFT, factories.WORKSPACE)
    tasks.run_chunk(lane.messages.popleft())
    other = frozen(lane)
    with engine.begin() as person:
        person.execute(text("SELECT FROM reschedules WHERE id = :id FOR UPDATE"), {"id": other})
        lane.run()
        assert status(engine, job) == "done"
        assert reschedule_turns._left_alone.keys() == {other}
    assert moved_once(engine, job, ids)
    jobs.run(other)
    assert status(engine, other) == "done"


def test_a_job_whose_warnings_cannot_be_made_ends_without_them(
    engine: Engine, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = posts(engine, 3)

    def broken(*_: Any) -> None:
        raise KeyError("a fault of our own")

    monkeypatch.setattr(reschedule_warnings, "warn", broken)
    job = lane.start(SHIFT, factories.WORKSPACE)
    lane.run()
    assert status(engine, job) == "done"
    assert moved_once(engine, job, ids)


def test_a_locked_post_of_another_workspace_takes_no_turn_again_and_again(engine: Engine, lane: Lane) -> None:
    posts(engine, 9)
    ids = posts_of(engine, "ws_quiet", 3)
    job = lane.start(SHIFT, factories.WORKSPACE)
    tasks.run_chunk(lane.messages.popleft())
    other = frozen(lane)
    with engine.begin() as person:
        person.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": ids[0]})
        assert [ran.outcome for ran in reschedule_turns.take_turn(job).done] == ["moved"], "two of the three"
        untouched(other)
        turn = reschedule_turns.take_turn(job)
        assert [(ran.outcome, ran.decided) for ran in turn.done][1:] == [("moved", True)], "its own step, too"
        assert jobs.counts(job)[2] == 3
    lane.ring(other)
    lane.run()
    assert {status(engine, one) for one in (job, other)} == {"done"}


def aged(*ids: str) -> None:
    with transaction() as tx:
        older = "UPDATE reschedules SET touched_at = now() - interval '6s' WHERE id = ANY(:ids)"
        tx.execute(text(older), {"ids": list(ids)})


@pytest.mark.usefixtures("engine")
def test_rescue_rings_for_no_job_that_waits_for_the_freezing_of_its_workspaces() -> None:
    first, second, other = jobs.make(SHIFT), jobs.make(SHIFT), jobs.make(SHIFT, "ws_quiet")
    aged(first, second, other)
    with transaction() as freezing:
        for name in (first, factories.WORKSPACE):
            assert chunks_store.take(freezing, name, chunks_store.FREEZING)
        assert rescue._reschedules() == 1, "that of the other workspace"
    assert rescue._reschedules() == 3


@pytest.mark.usefixtures("engine")
def test_rescue_stops_ringing_for_jobs_where_their_queue_is_full(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = settings().model_copy(update={"queue_full": 4})
    for module in (rescue, queue):
        monkeypatch.setattr(module, "settings", lambda: small)
    aged(*(jobs.make(SHIFT) for _ in range(6)))
    with redis.Redis.from_url(redis_url) as broker:
        seen = [(rescue._reschedules(), broker.llen("bulk")) for _ in range(3)]
    assert seen == [(4, 4), (0, 4), (0, 4)]
