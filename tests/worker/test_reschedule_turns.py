"""The tasks of bulk jobs side by side, and the room that they leave for single edits."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.ids import new_id
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, moved_once, posts
from worker import reschedule, reschedule_chunk
from worker.apply import apply_edits

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def while_a_chunk_is_at_work(job: str, meanwhile: Callable[[], None]) -> None:
    """Run one chunk of the job, and something else when it has been taken and not yet moved."""
    work: Any = reschedule_chunk.work
    begun: list[str] = []

    def first(*args: Any, **given: Any) -> Any:
        if not begun:
            begun.append(job)
            meanwhile()
        return work(*args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule, "work", first)
        assert reschedule.run_chunk(job).outcome == "moved"


def posted(engine: Engine) -> str:
    """A post of which no job means anything."""
    with engine.begin() as tx:
        return factories.post(tx, status="posted", posted_at=factories.soon(-5))


def edited(engine: Engine, post: str) -> None:
    """A single edit of that post, made now and ended."""
    with engine.begin() as tx:
        given = {"id": factories.edit(tx, post, {"caption": "new"}), "now": new_id("edit")}
        tx.execute(text("UPDATE edits SET id = :now WHERE id = :id"), given)
    assert len(apply_edits([post]).results) == 1


def test_two_tasks_at_once_move_two_chunks_side_by_side_and_every_post_once(engine: Engine) -> None:
    ids = posts(engine, 12)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    assert reschedule.run_chunk(job).messages == 2
    first_is_in, go_on = threading.Event(), threading.Event()
    work = reschedule_chunk.work
    ran: list[reschedule.Ran] = []

    def slow(*args: Any, **given: Any) -> Any:
        if not first_is_in.is_set():
            first_is_in.set()
            assert go_on.wait(10)
        return work(*args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule, "work", slow)
        task = threading.Thread(target=lambda: ran.append(reschedule.run_chunk(job)))
        task.start()
        assert first_is_in.wait(10)
        assert [reschedule.run_chunk(job).outcome for _ in range(4)] == ["moved", "moved", "moved", "busy"]
        assert jobs.counts(job) == ("running", 12, 9, 0, 0)
        assert [one.ordinal for one in jobs.results(job)] == list(range(3, 12))
        go_on.set()
        task.join()
    assert [(one.outcome, one.messages) for one in ran] == [("moved", 0)]
    assert jobs.counts(job) == ("done", 12, 12, 0, 0)
    assert moved_once(engine, job, ids)


def test_while_single_edits_wait_a_job_moves_one_chunk_at_a_time(engine: Engine) -> None:
    posts(engine, 9)
    other = posted(engine)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    seen: list[Any] = []

    def meanwhile() -> None:
        with engine.begin() as tx:
            edit = factories.edit(tx, other, {"caption": "waits"})
        seen.append(reschedule.run_chunk(job))
        apply_edits([other])
        assert factories.row(engine, "edits", edit).status == "rejected"
        seen.append(reschedule.run_chunk(job))

    while_a_chunk_is_at_work(job, meanwhile)
    assert [(one.outcome, one.messages, one.delay) for one in seen] == [("yielded", 1, 0.25), ("moved", 1, 0.0)]


def test_between_two_chunks_a_job_rests_for_a_quarter_of_a_second_while_single_edits_come(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts(engine, 9)
    other = posted(engine)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    assert reschedule.run_chunk(job).delay == 0.0
    edited(engine, other)
    assert (ran := reschedule.run_chunk(job)).outcome == "moved"
    assert (ran.messages, ran.delay) == (1, 0.25)
    later = time.time() + 2.1
    monkeypatch.setattr(time, "time", lambda: later)
    assert reschedule.run_chunk(job).messages == 0
    assert jobs.counts(job) == ("done", 9, 9, 0, 0)


def test_single_edits_that_come_one_by_one_keep_a_job_to_one_chunk_at_a_time_for_two_seconds_each(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts(engine, 9)
    other = posted(engine)
    edited(engine, other)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    seen: list[str] = []

    def meanwhile() -> None:
        before = time.time()
        edited(engine, other)
        after = time.time()
        seen.append(reschedule.run_chunk(job).outcome)
        monkeypatch.setattr(time, "time", lambda: before + 1.9)
        seen.append(reschedule.run_chunk(job).outcome)
        monkeypatch.setattr(time, "time", lambda: after + 2.1)
        seen.append(reschedule.run_chunk(job).outcome)

    while_a_chunk_is_at_work(job, meanwhile)
    assert seen == ["yielded", "yielded", "moved"]


def test_two_jobs_move_their_chunks_in_turn_while_single_edits_come_and_at_once_while_none_do(engine: Engine) -> None:
    posts(engine, 3, account_id=factories.TIKTOK)
    posts(engine, 6, account_id=factories.INSTAGRAM)
    other = posted(engine)
    first, second = (
        jobs.make({"filter": {"accountIds": [account]}, "shift": "P1D"})
        for account in (factories.TIKTOK, factories.INSTAGRAM)
    )
    reschedule.run_chunk(first)
    reschedule.run_chunk(second)
    seen: list[str] = []

    def meanwhile() -> None:
        seen.append(reschedule.run_chunk(second).outcome)
        edited(engine, other)
        seen.append(reschedule.run_chunk(second).outcome)

    while_a_chunk_is_at_work(first, meanwhile)
    assert seen == ["moved", "yielded"]
    assert reschedule.run_chunk(second).outcome == "moved"


def test_only_one_task_freezes_and_another_one_leaves_it_to_that(engine: Engine) -> None:
    posts(engine, 4)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    freeze: Any = reschedule._freeze
    seen: list[Any] = []

    def meanwhile(*args: Any) -> None:
        if not seen:
            seen.append(None)
            seen[0] = reschedule.run_chunk(job)
        freeze(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule, "_freeze", meanwhile)
        assert reschedule.run_chunk(job).outcome == "frozen"
    assert (seen[0].outcome, seen[0].messages, seen[0].delay) == ("busy", 1, 0.25)
    jobs.run(job)
    assert jobs.counts(job) == ("done", 4, 4, 0, 0)
