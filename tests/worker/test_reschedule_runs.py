"""The way of a bulk job through its tasks: held posts, doubled messages, deaths, cancel, revert, rescue."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared import db, queue
from shared.db import transaction
from shared.ids import new_id
from shared.reschedules import Outcome
from shared.settings import settings
from shared.store import StaleWriteError, reschedule_freezes
from shared.store import reschedules as store
from shared.times import format_instant, format_local, to_local
from tests import jobs, rows
from tests.processes import eventually
from worker import reschedule, reschedule_chunk, rescue
from worker.apply import apply_edits

ALL = {"all": True}


@pytest.fixture(autouse=True)
def _chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reschedule_freezes, "CHUNK", 3)


def posts(engine: Engine, count: int, **columns: Any) -> list[str]:
    with engine.begin() as tx:
        return [rows.post(tx, **columns) for _ in range(count)]


@contextmanager
def held_by_a_person(engine: Engine, *ids: str) -> Iterator[Connection]:
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": list(ids)})
        yield person


def moved_once(engine: Engine, job: str, ids: list[str]) -> bool:
    revisions = [rows.row(engine, "posts", post).revision for post in ids]
    audited = [audit.post_id for audit in jobs.audit(engine, job)]
    return revisions == [2] * len(ids) and sorted(audited) == sorted(ids)


def waits_for(engine: Engine, query: str) -> bool:
    """Whether a session waits for a row or transaction that another one holds."""
    with engine.connect() as tx:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :query"
        return bool(tx.execute(text(waiting), {"query": query}).scalar())


def test_posts_that_others_hold_are_passed_by_and_moved_when_they_are_free(engine: Engine) -> None:
    ids = sorted(posts(engine, 8))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    with held_by_a_person(engine, ids[1], ids[6]):
        ran = [reschedule.run_chunk(job) for _ in range(5)]
        assert [one.outcome for one in ran] == ["frozen", "moved", "moved", "moved", "moved"]
        assert [(one.messages, one.again) for one in ran] == [(2, 0.0), (1, 0.0), (1, 0.0), (1, 0.25), (1, 0.25)]
        assert jobs.counts(job) == ("running", 8, 6, 0, 0)
        assert [one.ordinal for one in jobs.results(job)] == [0, 2, 3, 4, 5, 7]
    jobs.run(job)
    assert jobs.counts(job) == ("done", 8, 8, 0, 0)
    assert moved_once(engine, job, ids)


def test_a_held_post_that_comes_free_within_the_patience_is_moved_by_the_same_task(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(posts(engine, 2))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    ran: list[Any] = []
    # Longer than a busy machine needs to see the wait; the product's own 50 ms are tested below.
    monkeypatch.setattr(reschedule, "WAIT_FOR_HELD", 1.5)
    task = threading.Thread(target=lambda: ran.append(reschedule.run_chunk(job)))
    with held_by_a_person(engine, ids[0]):
        task.start()
        eventually(lambda: waits_for(engine, "%FROM posts%FOR NO KEY UPDATE%"), within=5)
    task.join()
    assert (ran[0].messages, jobs.counts(job)) == (0, ("done", 2, 2, 0, 0))
    assert moved_once(engine, job, ids)


def test_a_chunk_that_meets_held_posts_waits_for_them_less_than_its_patience_in_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    waits: list[float] = []
    wait_at_most = reschedule.posts_store.wait_at_most

    def noted(tx: Connection, seconds: float) -> None:
        waits.append(seconds)
        wait_at_most(tx, seconds)

    monkeypatch.setattr(reschedule.posts_store, "wait_at_most", noted)
    with held_by_a_person(engine, *ids):
        reschedule.run_chunk(job)
    assert waits[0] <= 0.05
    assert waits == sorted(waits, reverse=True)
    jobs.run(job)
    assert moved_once(engine, job, ids)


def test_two_tasks_at_once_move_two_chunks_side_by_side_and_every_post_once(engine: Engine) -> None:
    ids = posts(engine, 12)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    assert reschedule.run_chunk(job).messages == 2
    first_is_in, go_on = threading.Event(), threading.Event()
    work, ran = reschedule.work, []

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


def while_a_chunk_is_at_work(job: str, meanwhile: Callable[[], None]) -> None:
    """Run one chunk of the job, and something else when it has been taken and not yet moved."""
    work: Any = reschedule.work
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
        return rows.post(tx, status="posted", posted_at=rows.soon(-5))


def edited(engine: Engine, post: str) -> None:
    """A single edit of that post, made now and ended."""
    with engine.begin() as tx:
        given = {"id": rows.edit(tx, post, {"caption": "new"}), "now": new_id("edit")}
        tx.execute(text("UPDATE edits SET id = :now WHERE id = :id"), given)
    assert len(apply_edits([post]).ends) == 1


def test_while_single_edits_wait_a_job_moves_one_chunk_at_a_time(engine: Engine) -> None:
    posts(engine, 9)
    other = posted(engine)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    seen: list[Any] = []

    def meanwhile() -> None:
        with engine.begin() as tx:
            edit = rows.edit(tx, other, {"caption": "waits"})
        seen.append(reschedule.run_chunk(job))
        apply_edits([other])
        assert rows.row(engine, "edits", edit).status == "rejected"
        seen.append(reschedule.run_chunk(job))

    while_a_chunk_is_at_work(job, meanwhile)
    assert [(one.outcome, one.messages, one.again) for one in seen] == [("yielded", 1, 0.25), ("moved", 1, 0.0)]


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
        monkeypatch.setattr(reschedule.time, "time", lambda: before + 1.9)
        seen.append(reschedule.run_chunk(job).outcome)
        monkeypatch.setattr(reschedule.time, "time", lambda: after + 2.1)
        seen.append(reschedule.run_chunk(job).outcome)

    while_a_chunk_is_at_work(job, meanwhile)
    assert seen == ["yielded", "yielded", "moved"]


def test_two_jobs_move_their_chunks_in_turn_while_single_edits_come_and_at_once_while_none_do(engine: Engine) -> None:
    posts(engine, 3, account_id=rows.TIKTOK)
    posts(engine, 6, account_id=rows.INSTAGRAM)
    other = posted(engine)
    first, second = (
        jobs.make({"filter": {"accountIds": [account]}, "shift": "P1D"}) for account in (rows.TIKTOK, rows.INSTAGRAM)
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
    assert (seen[0].outcome, seen[0].messages) == ("busy", 0)
    jobs.run(job)
    assert jobs.counts(job) == ("done", 4, 4, 0, 0)


def test_a_death_before_the_commit_leaves_nothing_half_done_and_the_next_task_repeats_nothing(engine: Engine) -> None:
    ids = posts(engine, 6)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)

    def die(tx: Connection, *_: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    for _ in range(7):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reschedule.chunks_store, "advance", die)
            with pytest.raises(Exception, match="terminat") as lost:
                reschedule.run_chunk(job)
        assert db.passing(lost.value)
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
    decide = reschedule_chunk.reschedules.decide

    def raising(index: int, post: Any, *rest: Any) -> Any:
        if post.id == ids[4]:
            raise ZeroDivisionError
        return decide(index, post, *rest)

    monkeypatch.setattr(reschedule_chunk.reschedules, "decide", raising)
    outcomes = []
    for _ in range(9):
        try:
            outcomes.append(reschedule.run_chunk(job).outcome)
        except ZeroDivisionError:
            outcomes.append("died")
    assert outcomes == ["frozen", "moved", "died", "died", "died", "died", "died", "failed", "gone"]
    assert jobs.counts(job) == ("failed", 6, 3, 0, 0)
    assert "again and again" in jobs.job(job).public()["error"]
    assert [rows.row(engine, "posts", post).revision for post in ids] == [2, 2, 2, 1, 1, 1]


def test_held_posts_that_end_their_worker_every_time_fail_the_job_and_waiting_for_them_costs_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = sorted(posts(engine, 3))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    with held_by_a_person(engine, ids[1]):
        outcomes = [reschedule.run_chunk(job).outcome for _ in range(9)]
        assert outcomes == ["frozen", *["moved"] * 8]
        with engine.connect() as tx:
            assert tx.execute(text("SELECT attempts FROM reschedule_chunks")).scalar_one() == 0
    assert jobs.counts(job) == ("running", 3, 2, 0, 0)

    def raising(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reschedule_chunk.reschedules, "decide", raising)
    outcomes = []
    for _ in range(7):
        try:
            outcomes.append(reschedule.run_chunk(job).outcome)
        except ZeroDivisionError:
            outcomes.append("died")
    assert outcomes == ["died", "died", "died", "died", "died", "failed", "gone"]
    assert jobs.counts(job) == ("failed", 3, 2, 0, 0)


def test_a_write_that_finds_another_row_than_was_locked_rolls_all_of_its_chunk_back(engine: Engine) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    move = reschedule_chunk.moves_store.move

    def late(tx: Connection, *args: Any, **given: Any) -> None:
        tx.execute(text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = (SELECT min(id) FROM posts)"))
        move(tx, *args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule_chunk.moves_store, "move", late)
        with pytest.raises(StaleWriteError):
            reschedule.run_chunk(job)
    assert jobs.counts(job) == ("running", 3, 0, 0, 0)
    assert jobs.audit(engine, job) == []


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

    assert statements(1) == statements(50) == 8, "\n".join(seen)


def test_cancel_stops_at_the_next_chunk_and_says_what_was_moved(engine: Engine) -> None:
    ids = sorted(posts(engine, 9))
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    for _ in range(2):
        reschedule.run_chunk(job)
    with transaction() as tx:
        assert store.cancel(tx, "ws_other", job) is None
        canceled = store.cancel(tx, rows.WORKSPACE, job)
    assert canceled is not None
    assert (canceled.status, canceled.applied, canceled.total) == ("canceled", 3, 9)
    assert canceled.finished_at is not None
    assert reschedule.run_chunk(job).outcome == "gone"
    with transaction() as tx:
        assert store.cancel(tx, rows.WORKSPACE, job) is None
    assert [rows.row(engine, "posts", post).revision for post in ids] == [2] * 3 + [1] * 6
    assert [one.post_id for one in jobs.results(job)] == ids[:3]


def test_nothing_moves_after_a_cancel_was_answered_and_a_chunk_at_work_is_undone(engine: Engine) -> None:
    ids = sorted(posts(engine, 6))
    with engine.begin() as tx:
        edit = rows.edit(tx, ids[3], {"caption": "waits"})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    for _ in range(2):
        reschedule.run_chunk(job)
    work: Any = reschedule.work
    canceled: list[Any] = []

    def meanwhile(*args: Any, **given: Any) -> Any:
        with transaction() as tx:
            canceled.append(store.cancel(tx, rows.WORKSPACE, job))
        return work(*args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule, "work", meanwhile)
        ran = reschedule.run_chunk(job)
    assert (ran.outcome, ran.messages) == ("gone", 0)
    assert (canceled[0].status, canceled[0].applied) == ("canceled", 3)
    assert jobs.counts(job) == ("canceled", 6, 3, 0, 0)
    assert [rows.row(engine, "posts", post).revision for post in ids] == [2] * 3 + [1] * 3
    assert (rows.row(engine, "edits", edit).status, rows.row(engine, "edits", edit).attempts) == ("queued", 0)
    assert reschedule.run_chunk(job).outcome == "gone"


def test_a_job_canceled_before_its_freeze_freezes_nothing(engine: Engine) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    freeze: Any = reschedule.freezes_store.freeze

    def meanwhile(*args: Any) -> Any:
        with transaction() as tx:
            store.cancel(tx, rows.WORKSPACE, job)
        return freeze(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reschedule.freezes_store, "freeze", meanwhile)
        assert reschedule.run_chunk(job).outcome == "gone"
    assert jobs.counts(job) == ("canceled", None, 0, 0, 0)
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM reschedule_chunks")).scalar_one() == 0


def test_a_freeze_that_never_comes_to_its_end_fails_the_job(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    posts(engine, 3)
    job = jobs.make({"filter": ALL, "shift": "P1D"})

    def cut_off(tx: Connection, *_: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(reschedule.freezes_store, "freeze", cut_off)
    outcomes = []
    for _ in range(7):
        try:
            outcomes.append(reschedule.run_chunk(job).outcome)
        except DBAPIError as error:
            outcomes.append("cut off" if db.passing(error) else repr(error))
    assert outcomes == ["cut off"] * 5 + ["failed", "gone"]


def test_a_revert_restores_instant_and_zone_of_posts_that_still_are_where_the_job_put_them(engine: Engine) -> None:
    with engine.begin() as tx:
        plain, rezoned, edited, zone_only, unmoved, gone_by = (rows.post(tx, timezone=None) for _ in range(6))
        tx.execute(
            text("UPDATE posts SET scheduled_time = :at WHERE id = :id"),
            {"id": unmoved, "at": "2035-01-01T12:00Z"},
        )
        tx.execute(text("UPDATE posts SET scheduled_time = now() - interval '1s' WHERE id = :id"), {"id": gone_by})
        tx.execute(text("UPDATE posts SET timezone = 'Asia/Tokyo' WHERE id IN (:a, :b)"), {"a": rezoned, "b": unmoved})
    named = [plain, rezoned, edited, zone_only, unmoved, gone_by]
    first = {post: rows.row(engine, "posts", post) for post in named}
    items = [
        {"postId": post, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"}
        for post in (plain, rezoned, edited, zone_only, unmoved, gone_by)
    ]
    job = jobs.done({"items": items})
    assert jobs.counts(job) == ("done", 6, 6, 0, 0)
    with engine.begin() as tx:
        later = {"scheduledTime": "2035-01-01T21:01", "timezone": "Asia/Tokyo"}
        rows.edit(tx, edited, later)
        rows.edit(tx, zone_only, {"scheduledTime": "2035-01-01T12:00", "timezone": "Europe/London"})
    apply_edits([edited, zone_only])
    inverse = jobs.revert(job)
    jobs.run(inverse)
    assert jobs.told(inverse) == {
        plain: ("applied", None),
        rezoned: ("applied", None),
        edited: ("skipped", "changed_since"),
        zone_only: ("skipped", "changed_since"),
        gone_by: ("skipped", "time_past"),
    }
    for post in (plain, rezoned):
        stored = rows.row(engine, "posts", post)
        assert (stored.scheduled_time, stored.timezone) == (first[post].scheduled_time, first[post].timezone)
    again = jobs.revert(inverse)
    jobs.run(again)
    assert jobs.told(again) == {plain: ("applied", None), rezoned: ("applied", None)}
    assert format_instant(jobs.at(engine, plain)) == "2035-01-01T12:00:00Z"


def test_a_job_is_reverted_once(engine: Engine) -> None:
    posts(engine, 1)
    job = jobs.done({"filter": ALL, "shift": "P1D"})
    jobs.revert(job)
    with pytest.raises(AssertionError), transaction():
        jobs.revert(job)
    with transaction() as tx:
        assert store.reverted_by(tx, job) is not None


def test_a_reverted_shift_restores_each_post_over_a_clock_change(engine: Engine) -> None:
    with engine.begin() as tx:
        ids = [
            rows.post(tx, scheduled_time=f"2030-03-{day:02}T08:00Z", timezone="Europe/Paris") for day in range(25, 31)
        ]
    first = {post: jobs.at(engine, post) for post in ids}
    job = jobs.done({"filter": ALL, "shift": "P3DT2H"})
    steps = {jobs.at(engine, post) - first[post] for post in ids}
    assert steps == {timedelta(days=3, hours=2), timedelta(days=3, hours=1)}
    jobs.run(jobs.revert(job))
    assert {post: jobs.at(engine, post) for post in ids} == first


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
        assert dict(store.live(tx, 5.0)) == {fresh: False, stalled: True}


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
    at = {zone: format_local(to_local(jobs.at(engine, rezoned), zone)) for zone in ("Asia/Tokyo",)}
    items = [
        {"postId": moved, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"},
        {"postId": rezoned, "scheduledTime": at["Asia/Tokyo"], "timezone": "Asia/Tokyo"},
        {"postId": posted, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"},
    ]
    job = jobs.make({"items": items})
    ran = jobs.run(job)
    assert [one.applied.told for one in ran] == [[], [moved]]
    audit = {row.post_id: row.id for row in jobs.audit(engine, job)}
    with engine.connect() as tx:
        [event] = tx.execute(text("SELECT type, workspace_id, post_id, data FROM webhook_events")).all()
    assert tuple(event[:3]) == ("post.rescheduled", rows.WORKSPACE, moved)
    assert event[3] == {
        "workspaceId": rows.WORKSPACE,
        "postId": moved,
        "before": format_instant(before),
        "after": "2035-01-01T12:00:00Z",
        "editId": audit[moved],
        "rescheduleId": job,
    }


@pytest.mark.parametrize("junk", ["rsch_nobody", "", "rsch_\\'; --"])
@pytest.mark.usefixtures("engine")
def test_a_message_for_a_job_that_is_not_there_is_a_no_op(junk: str) -> None:
    assert reschedule.run_chunk(junk).summary() == {"chunk": "gone"}
