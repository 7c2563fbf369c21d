"""Jobs with a gap beside each other and beside single edits: what docs/bulk.md says of them, with real connections."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import reschedule_moves as moves_store
from tests import factories, jobs
from tests.faults.actors import waits_for_a_lock
from tests.worker.fake_services import in_thread
from worker import reschedule
from worker.apply import apply_edits

DAY = datetime(2030, 6, 1, 9, tzinfo=UTC)
MOVED, CLOSE = ("applied", None), ("skipped", "too_close")


class Pause:
    """Stops the first one that is about to move posts: its look is over, and it has its locks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        move = moves_store.move

        def paused(*given: Any, **named: Any) -> None:
            if not self.reached.is_set():
                self.reached.set()
                assert self.go.wait(10)
            move(*given, **named)

        monkeypatch.setattr(moves_store, "move", paused)


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Pause:
    return Pause(monkeypatch)


def post(engine: Engine, name: str, minutes: float, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, name, scheduled_time=DAY + timedelta(minutes=minutes), **columns)


def frozen(*names: str, shift: str, gap: str | None = "PT30M") -> str:
    """A job whose posts are frozen, and that has moved none of them."""
    body: dict[str, Any] = {"filter": {"postIds": list(names)}, "shift": shift}
    job = jobs.make(body if gap is None else body | {"minGap": gap})
    assert reschedule.run_chunk(job).outcome == "frozen"
    return job


def distance(engine: Engine, one: str, other: str) -> timedelta:
    return abs(jobs.at(engine, one) - jobs.at(engine, other))


def test_of_two_jobs_at_once_the_later_one_waits_and_sees_what_the_earlier_one_moved(
    engine: Engine, pause: Pause
) -> None:
    """Each by itself would move its post, and the two would stand 10 minutes apart."""
    post(engine, "a", 0)
    post(engine, "b", 1000)
    first, second = frozen("a", shift="PT8H"), frozen("b", shift="-PT8H30M")
    with in_thread(lambda: jobs.run(first)):
        assert pause.reached.wait(10)
        with in_thread(lambda: jobs.run(second)):
            assert "pg_advisory_xact_lock(7344" in waits_for_a_lock(engine)
            assert jobs.job(second).applied == 0
            pause.go.set()
    assert (jobs.told(first), jobs.told(second)) == ({"a": MOVED}, {"b": CLOSE})
    assert distance(engine, "a", "b") >= timedelta(minutes=30)


def test_a_job_that_waits_for_another_one_has_locked_no_post_meanwhile(engine: Engine, pause: Pause) -> None:
    post(engine, "a", 0)
    post(engine, "b", 1000)
    first, second = frozen("a", shift="PT8H"), frozen("b", shift="-PT8H30M")
    with in_thread(lambda: jobs.run(first)):
        assert pause.reached.wait(10)
        with in_thread(lambda: jobs.run(second)):
            waits_for_a_lock(engine)
            with engine.begin() as tx:
                tx.execute(text("SELECT 1 FROM posts WHERE id = 'b' FOR UPDATE NOWAIT"))
            pause.go.set()


def test_jobs_of_two_accounts_do_not_wait_for_each_other(engine: Engine, pause: Pause) -> None:
    post(engine, "a", 0)
    post(engine, "b", 0, account_id=factories.INSTAGRAM, platform="instagram")
    first, second = frozen("a", shift="PT8H"), frozen("b", shift="PT8H")
    with in_thread(lambda: jobs.run(first)):
        assert pause.reached.wait(10)
        jobs.run(second)
        assert jobs.told(second) == {"b": MOVED}
        pause.go.set()
    assert jobs.told(first) == {"a": MOVED}


def test_a_job_without_a_gap_and_an_edit_wait_for_none_and_may_put_their_posts_anywhere(
    engine: Engine, pause: Pause
) -> None:
    """What the contract says: they come after the look of the job with a gap, as if they came after its end."""
    for name, minutes in (("a", 0), ("b", 1000), ("c", 2000)):
        post(engine, name, minutes)
    job, other = frozen("a", shift="PT8H"), frozen("b", shift="-PT8H30M", gap=None)
    with in_thread(lambda: jobs.run(job)):
        assert pause.reached.wait(10)
        jobs.run(other)
        with engine.begin() as tx:
            factories.edit(tx, "c", {"scheduledTime": "2030-06-02T02:01", "timezone": "Asia/Tokyo"})
        assert [result.status for result in apply_edits(["c"]).results] == ["applied"]
        pause.go.set()
    assert (jobs.told(job), jobs.told(other)) == ({"a": MOVED}, {"b": MOVED})
    assert distance(engine, "a", "b") == timedelta(minutes=10)
    assert distance(engine, "a", "c") == timedelta(minutes=1)


def test_an_edit_that_was_applied_before_the_look_is_seen(engine: Engine) -> None:
    post(engine, "a", 0)
    post(engine, "c", 2000)
    job = frozen("a", shift="PT8H")
    with engine.begin() as tx:
        factories.edit(tx, "c", {"scheduledTime": "2030-06-02T02:01", "timezone": "Asia/Tokyo"})
    apply_edits(["c"])
    jobs.run(job)
    assert jobs.told(job) == {"a": CLOSE}
