"""A bulk job that is canceled, and what was moved by then."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import reschedule_freezes as freezes_store
from shared.store import reschedules as store
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, posts
from worker import reschedule, reschedule_chunk

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def test_cancel_stops_at_the_next_chunk_and_says_what_was_moved(engine: Engine) -> None:
    ids = sorted(posts(engine, 9))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    for _ in range(2):
        reschedule.run_chunk(job)
    with transaction() as tx:
        assert store.cancel(tx, "ws_other", job) is None
        canceled = store.cancel(tx, factories.WORKSPACE, job)
    assert canceled is not None
    assert (canceled.status, canceled.applied, canceled.total) == ("canceled", 3, 9)
    assert canceled.finished_at is not None
    assert reschedule.run_chunk(job).outcome == "gone"
    with transaction() as tx:
        assert store.cancel(tx, factories.WORKSPACE, job) is None
    assert [factories.row(engine, "posts", post).revision for post in ids] == [2] * 3 + [1] * 6
    assert [one.post_id for one in jobs.results(job)] == ids[:3]


def test_nothing_moves_after_a_cancel_was_answered_and_a_chunk_at_work_is_undone(engine: Engine) -> None:
    ids = sorted(posts(engine, 6))
    with engine.begin() as tx:
        edit = factories.edit(tx, ids[3], {"caption": "waits"})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    for _ in range(2):
        reschedule.run_chunk(job)
    work: Any = reschedule_chunk.work
    canceled: list[Any] = []

    def meanwhile(*args: Any, **given: Any) -> Any:
        with transaction() as tx:
            canceled.append(store.cancel(tx, factories.WORKSPACE, job))
        return work(*args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule, "work", meanwhile)
        ran = reschedule.run_chunk(job)
    assert (ran.outcome, ran.messages) == ("gone", 0)
    assert (canceled[0].status, canceled[0].applied) == ("canceled", 3)
    assert jobs.counts(job) == ("canceled", 6, 3, 0, 0)
    assert [factories.row(engine, "posts", post).revision for post in ids] == [2] * 3 + [1] * 3
    assert (factories.row(engine, "edits", edit).status, factories.row(engine, "edits", edit).attempts) == ("queued", 0)
    assert reschedule.run_chunk(job).outcome == "gone"


def test_a_job_canceled_before_its_freeze_freezes_nothing(engine: Engine) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    freeze: Any = freezes_store.freeze

    def meanwhile(*args: Any) -> Any:
        with transaction() as tx:
            store.cancel(tx, factories.WORKSPACE, job)
        return freeze(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freezes_store, "freeze", meanwhile)
        assert reschedule.run_chunk(job).outcome == "gone"
    assert jobs.counts(job) == ("canceled", None, 0, 0, 0)
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM reschedule_chunks")).scalar_one() == 0
