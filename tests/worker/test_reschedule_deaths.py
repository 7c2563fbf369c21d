"""Chunks and freezes that stop their worker, and writes that meet a changed row: undone, counted, given up at last."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from shared.domain import reschedules
from shared.store import StaleWriteError, db
from shared.store import reschedule_chunks as chunks_store
from shared.store import reschedule_freezes as freezes_store
from shared.store import reschedule_moves as moves_store
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, locked_by_a_person, moved_once, posts
from worker import reschedule

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def test_a_death_before_the_commit_leaves_nothing_half_done_and_the_next_task_repeats_nothing(engine: Engine) -> None:
    ids = posts(engine, 6)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)

    def die(tx: Connection, *_: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    for _ in range(7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunks_store, "advance", die)
            with pytest.raises(Exception, match="terminat") as lost:
                reschedule.run_chunk(job)
        assert db.is_transient(lost.value)
    assert jobs.counts(job) == ("running", 6, 0, 0, 0)
    with engine.connect() as tx:
        assert list(tx.execute(text("SELECT attempts FROM reschedule_chunks")).scalars()) == [0, 0]
    jobs.run(job)
    assert moved_once(engine, job, ids)


def test_a_chunk_that_ends_its_worker_every_time_fails_the_job_after_five_attempts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(posts(engine, 6))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    decide = reschedules.decide

    def raising(index: int, post: Any, *rest: Any) -> Any:
        if post.id == ids[4]:
            raise ZeroDivisionError
        return decide(index, post, *rest)

    monkeypatch.setattr(reschedules, "decide", raising)
    outcomes = []
    with capture_logs() as said:
        for _ in range(9):
            try:
                outcomes.append(reschedule.run_chunk(job).outcome)
            except ZeroDivisionError:
                outcomes.append("died")
    assert outcomes == ["frozen", "moved", "died", "died", "died", "died", "died", "failed", "gone"]
    assert jobs.counts(job) == ("failed", 6, 3, 0, 0)
    # Red before: neither the job nor the log of its worker named the posts and the fault.
    cause = "each one stopped its worker or failed in it"
    assert jobs.job(job).public()["error"] == (
        f"Gave up after 5 attempts at 3 posts, from {ids[3]} to {ids[5]}: {cause}"
    )
    spent = [line for line in said if line["event"] == "attempt_spent" and line.get("reschedule_id") == job]
    assert [(line["error"], line["first"], line["last"], line["posts"]) for line in spent] == [
        ("ZeroDivisionError", ids[3], ids[5], 3)
    ] * 5
    assert [factories.row(engine, "posts", post).revision for post in ids] == [2, 2, 2, 1, 1, 1]


def test_contended_posts_that_end_their_worker_every_time_fail_the_job_and_waiting_for_them_costs_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(posts(engine, 3))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    with locked_by_a_person(engine, ids[1]):
        outcomes = [reschedule.run_chunk(job).outcome for _ in range(9)]
        assert outcomes == ["frozen", *["moved"] * 8]
        with engine.connect() as tx:
            assert tx.execute(text("SELECT attempts FROM reschedule_chunks")).scalar_one() == 0
    assert jobs.counts(job) == ("running", 3, 2, 0, 0)

    def raising(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reschedules, "decide", raising)
    outcomes = []
    for _ in range(7):
        try:
            outcomes.append(reschedule.run_chunk(job).outcome)
        except ZeroDivisionError:
            outcomes.append("died")
    assert outcomes == ["died", "died", "died", "died", "died", "failed", "gone"]
    assert jobs.counts(job) == ("failed", 3, 2, 0, 0)
    assert f"5 attempts at {ids[1]}: each" in jobs.job(job).public()["error"]


def test_a_write_that_finds_another_row_than_was_locked_rolls_all_of_its_chunk_back(engine: Engine) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    move = moves_store.move

    def late(tx: Connection, *args: Any, **given: Any) -> None:
        tx.execute(text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = (SELECT min(id) FROM posts)"))
        move(tx, *args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moves_store, "move", late)
        with pytest.raises(StaleWriteError):
            reschedule.run_chunk(job)
    assert jobs.counts(job) == ("running", 3, 0, 0, 0)
    assert jobs.audit(engine, job) == []


def test_a_freeze_whose_connection_is_lost_costs_the_job_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})

    def lost(tx: Connection, *_: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with monkeypatch.context() as patch:
        patch.setattr(freezes_store, "freeze", lost)
        for _ in range(7):
            with pytest.raises(DBAPIError) as error:
                reschedule.run_chunk(job)
            assert db.is_transient(error.value)
    jobs.run(job)
    assert moved_once(engine, job, ids)


@pytest.mark.parametrize("number", [chunks_store.FREEZING, 0], ids=["freeze", "chunk"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_attempt_whose_counting_is_lost_is_given_back_only_where_it_was_counted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    if number == 0:
        reschedule.run_chunk(job)
    with db.autocommit_relaxed() as relaxed:
        chunks_store.count_attempt(relaxed, job, number)  # one died at it
    count = chunks_store.count_attempt

    def cut(relaxed: Connection, *given: Any) -> int:
        if when == "after":
            count(relaxed, *given)
        relaxed.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        raise AssertionError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(chunks_store, "count_attempt", cut)
        with pytest.raises(DBAPIError):
            reschedule.run_chunk(job)
    with db.autocommit_relaxed() as relaxed:
        assert count(relaxed, job, number) == 2


@pytest.mark.parametrize("limit", ["transaction_timeout", "statement_timeout"])
def test_a_freeze_that_never_comes_to_its_end_fails_the_job(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    # A transaction's own time-out runs from its beginning: set within it, it would not run at all.
    for name, seconds in (("LOCK", "0.1"), ("IDLE_IN_TRANSACTION_SESSION", "0.2"), ("TRANSACTION", "0.3")):
        monkeypatch.setenv(f"REDRAFT_{name}_TIMEOUT", seconds)
    factories.forget_caches()
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})

    def cut_off(tx: Connection, *_: Any) -> None:
        if limit == "statement_timeout":
            tx.execute(text("SELECT set_config('statement_timeout', '50ms', true)"))
        tx.execute(text("SELECT pg_sleep(20)"))

    monkeypatch.setattr(freezes_store, "freeze", cut_off)
    outcomes = []
    for _ in range(7):
        try:
            outcomes.append(reschedule.run_chunk(job).outcome)
        except DBAPIError as error:
            outcomes.append("cut off" if db.is_transient(error) else repr(error))
    assert outcomes == ["cut off"] * 5 + ["failed", "gone"]
    assert "5 attempts to find its posts: each" in jobs.job(job).public()["error"]
