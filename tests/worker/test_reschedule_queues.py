"""Posts of a bulk job for which edits wait: drained, waited for, or predicted by a dry run."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import db
from shared.store import edits as edits_store
from shared.store import reschedule_moves as moves_store
from shared.store.edits import Owed
from tests import factories, jobs
from tests.worker.bulk import ALL, posts
from worker import reschedule, reschedule_chunk
from worker.apply import apply_edits


def test_a_post_whose_edit_is_to_run_alone_is_waited_for_and_moved_when_it_has(engine: Engine) -> None:
    """Its batches failed at PostgreSQL, and it costs no attempt yet."""
    deferred, fine = posts(engine, 2)
    with engine.begin() as tx:
        edit = factories.edit(tx, deferred, {"caption": "second"})
        tx.execute(text("UPDATE edits SET deferrals = 3, started_at = clock_timestamp() WHERE id = :id"), {"id": edit})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    assert [reschedule.run_chunk(job).messages for _ in range(3)] == [1, 1, 1]
    assert jobs.told(job) == {fine: ("applied", None)}
    apply_edits([deferred])
    jobs.run(job)
    assert jobs.counts(job) == ("done", 2, 2, 0, 0)


def test_a_post_whose_edit_was_started_just_now_is_waited_for_and_moved_when_the_attempt_is_given_back(
    engine: Engine,
) -> None:
    """So it looks while a worker is at the edit aside of its lock, or was frozen there until it lost the lock."""
    frozen, fine = posts(engine, 2)
    with engine.begin() as tx:
        edit = factories.edit(tx, frozen, {"caption": "second"})
        at_it = text("UPDATE edits SET attempts = 1, started_at = clock_timestamp() WHERE id = :id")
        tx.execute(at_it, {"id": edit})
    waited = []
    for dry_run in (True, False):
        job = jobs.make({"filter": ALL, "shift": "P1D", "dryRun": dry_run})
        assert [reschedule.run_chunk(job).messages for _ in range(4)] == [1, 1, 1, 1]
        assert jobs.told(job) == {fine: ("applied", None)}
        waited.append(job)
    with db.autocommit_relaxed() as relaxed:
        edits_store.give_back_attempts(relaxed, [Owed(edit, 0, deferred=False)])
    for job in waited:
        jobs.run(job)
        assert jobs.counts(job) == ("done", 2, 2, 0, 0)
    assert factories.row(engine, "edits", edit).status == "applied"


def test_a_post_whose_edit_was_tried_is_skipped_when_nobody_tried_it_again_for_long(engine: Engine) -> None:
    poisoned, fine = posts(engine, 2)
    with engine.begin() as tx:
        edit = factories.edit(tx, poisoned, {"caption": "poison"})
        tx.execute(text("UPDATE edits SET attempts = 4, started_at = clock_timestamp() WHERE id = :id"), {"id": edit})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    assert [reschedule.run_chunk(job).messages for _ in range(3)] == [1, 1, 1]
    with engine.begin() as tx:
        tx.execute(text("UPDATE edits SET started_at = now() - interval '16 seconds'"))
    jobs.run(job)
    assert jobs.told(job) == {poisoned: ("skipped", "edit_waiting"), fine: ("applied", None)}


def test_a_dry_run_reckons_with_every_queued_edit_however_many_there_are(engine: Engine) -> None:
    first, last = sorted(posts(engine, 2, timezone="Asia/Tokyo"))
    with engine.begin() as tx:
        for number in range(1500):
            factories.edit(tx, first, {"caption": str(number)})
        for post in (first, last):
            factories.edit(tx, post, {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"}, if_match=None)
        factories.edit(tx, first, {"scheduledTime": "2033-05-01T09:00", "timezone": "Asia/Tokyo"}, if_match=['"1502"'])
        factories.edit(tx, first, {"scheduledTime": "2034-05-01T09:00", "timezone": "Asia/Tokyo"}, if_match=['"1502"'])
    body = {"filter": ALL, "shift": "P1D"}
    dry = jobs.done(body | {"dryRun": True})
    real = jobs.done(body)
    assert jobs.results(dry) == jobs.results(real)
    assert [one.after for one in jobs.results(dry)] == ["2033-05-02T00:00:00Z", "2031-05-02T00:00:00Z"]


def test_a_dry_run_that_has_no_time_for_all_queues_reckons_with_the_rest_in_its_next_steps(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reschedule_chunk, "PREDICTS_FOR", 0.0)
    monkeypatch.setattr(reschedule_chunk, "PREDICTED_AT_ONCE", 1)
    monkeypatch.setattr(reschedule, "WAIT_FOR_LOCKS", 0.0)
    ids = posts(engine, 3, timezone="Asia/Tokyo")
    with engine.begin() as tx:
        for post in ids:
            factories.edit(tx, post, {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"})
    job = jobs.make({"filter": ALL, "shift": "P1D", "dryRun": True})
    reschedule.run_chunk(job)
    reschedule.run_chunk(job)
    assert jobs.counts(job) == ("running", 3, 1, 0, 0)
    jobs.run(job)
    assert {one.after for one in jobs.results(job)} == {"2031-05-02T00:00:00Z"}
    assert jobs.counts(job) == ("done", 3, 3, 0, 0)


def test_a_dry_run_looks_again_at_a_post_that_changed_while_its_queue_was_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (post,) = posts(engine, 1, timezone="Asia/Tokyo")
    with engine.begin() as tx:
        factories.edit(tx, post, {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"})
    job = jobs.make({"filter": ALL, "shift": "P1D", "dryRun": True})
    reschedule.run_chunk(job)
    waiting = moves_store.waiting

    def applied_meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(moves_store, "waiting", waiting)
        apply_edits([post])
        return waiting(*given)

    monkeypatch.setattr(moves_store, "waiting", applied_meanwhile)
    jobs.run(job)
    assert [one.after for one in jobs.results(job)] == ["2031-05-02T00:00:00Z"]
