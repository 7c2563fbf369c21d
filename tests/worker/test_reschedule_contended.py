"""Posts that are locked while a bulk job comes to them: skipped, waited for a moment, moved when they are free."""

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from shared.store import posts as posts_store
from tests import factories, jobs
from tests.waiting import eventually
from tests.worker.bulk import ALL, chunks_of_three, edits_locked_by_a_person, locked_by_a_person, moved_once, posts
from worker import reschedule

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def waits_for(engine: Engine, query: str) -> bool:
    """Whether a session waits for a row or transaction that another one holds."""
    with engine.connect() as tx:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :query"
        return bool(tx.execute(text(waiting), {"query": query}).scalar())


def test_posts_that_others_hold_are_passed_by_and_moved_when_they_are_free(engine: Engine) -> None:
    ids = sorted(posts(engine, 8))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    with locked_by_a_person(engine, ids[1], ids[6]):
        ran = [reschedule.run_chunk(job) for _ in range(5)]
        assert [one.outcome for one in ran] == ["frozen", "moved", "moved", "moved", "moved"]
        assert [(one.messages, one.delay) for one in ran] == [(2, 0.0), (1, 0.0), (1, 0.0), (1, 0.25), (1, 0.25)]
        assert jobs.counts(job) == ("running", 8, 6, 0, 0)
        assert [one.ordinal for one in jobs.results(job)] == [0, 2, 3, 4, 5, 7]
    jobs.run(job)
    assert jobs.counts(job) == ("done", 8, 8, 0, 0)
    assert moved_once(engine, job, ids)


def test_a_post_one_of_whose_edits_a_person_holds_is_moved_when_it_is_free_and_its_neighbours_at_once(
    engine: Engine,
) -> None:
    ids = sorted(posts(engine, 3))
    with engine.begin() as tx:
        taken = factories.edit(tx, ids[1], {"caption": "second"})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    with edits_locked_by_a_person(engine, taken):
        assert [reschedule.run_chunk(job).outcome for _ in range(3)] == ["frozen", "moved", "moved"]
        assert jobs.counts(job) == ("running", 3, 2, 0, 0)
    jobs.run(job)
    assert jobs.counts(job) == ("done", 3, 3, 0, 0)
    assert [factories.row(engine, "posts", post).revision for post in ids] == [2, 3, 2]


def test_a_contended_post_that_comes_free_within_the_patience_is_moved_by_the_same_task(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(posts(engine, 2))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    ran: list[Any] = []
    # Longer than a busy machine needs to see the wait; the product's own 50 ms are tested below.
    monkeypatch.setattr(reschedule, "WAIT_FOR_LOCKS", 1.5)
    task = threading.Thread(target=lambda: ran.append(reschedule.run_chunk(job)))
    with locked_by_a_person(engine, ids[0]):
        task.start()
        eventually(lambda: waits_for(engine, "%FROM posts%FOR NO KEY UPDATE%"), within=30)
    task.join()
    assert (ran[0].messages, jobs.counts(job)) == (0, ("done", 2, 2, 0, 0))
    assert moved_once(engine, job, ids)


def test_a_chunk_that_meets_contended_posts_waits_for_them_less_than_its_patience_in_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    waits: list[float] = []
    wait_at_most = posts_store.wait_at_most

    def noted(tx: Connection, seconds: float) -> None:
        waits.append(seconds)
        wait_at_most(tx, seconds)

    monkeypatch.setattr(posts_store, "wait_at_most", noted)
    with locked_by_a_person(engine, *ids):
        reschedule.run_chunk(job)
    assert waits[0] <= 0.05
    assert waits == sorted(waits, reverse=True)
    jobs.run(job)
    assert moved_once(engine, job, ids)
