"""What a worker had in hand when it died, or failed: found by the next task or by rescue, and counted once."""

import os
import subprocess
import sys
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from shared.broker import doorbells, hands, worker_metrics
from shared.broker.doorbells import Bell
from shared.broker.hands import Hand
from shared.domain import lifecycle
from shared.store import batches
from shared.telemetry import logs
from tests import factories
from tests.api.answers import messages_at
from tests.waiting import eventually
from tests.worker.failing_decisions import fail_for
from tests.worker.waking import broker, edited, json_args
from worker import apply, awake, rescue, tasks
from worker.attempts import EditAttempts

__all__ = ["broker"]


def test_an_edit_that_runs_for_the_first_time_counts_as_one_attempt_and_says_when_it_began(engine: Engine) -> None:
    post, edit = edited(engine)
    with factories.statements() as seen:
        assert tasks.apply_edits([post], None) == {"applied": 1}
    assert not any("attempts = e.attempts + 1" in one for one in seen)
    ended = factories.row(engine, "edits", edit)
    assert ended.attempts == 1
    assert ended.created_at <= ended.started_at <= ended.finalized_at


def dying(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """The process ends at this point of its task: nothing below it runs, no handler either."""

    def die(*_: Any, **__: Any) -> Any:
        raise SystemExit

    where: dict[str, tuple[Any, str]] = {
        "under the lock": (lifecycle, "decide"),
        "before the commit": (batches, "finalize"),
        "after the commit": (awake, "_answers"),
        "with the answer": (Hand, "answer_and_take"),
    }
    monkeypatch.setattr(*where[point], die)


@pytest.fixture
def dead() -> str:
    """The name of a process of this worker's pool that has died."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return f"{worker_metrics.process_name().rpartition('/')[0]}/{gone.pid}"


POINTS = ["under the lock", "before the commit", "after the commit", "with the answer"]


def died(post: str, name: str, point: str) -> None:
    """The process of this name dies at this point, with the doorbell of this post in hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_metrics, "process_name", lambda: name)
        patch.setattr(EditAttempts, "__exit__", lambda *_: None)  # a killed process gives nothing back
        dying(patch, point)
        with pytest.raises(SystemExit):
            tasks.apply_edits([post], "me#1")
    assert Hand(name).left() == [Bell([post], "me#1")]


@pytest.mark.parametrize("point", POINTS)
def test_the_next_task_of_the_pool_finds_what_a_dead_process_had_in_hand_and_counts_it_once(
    engine: Engine, dead: str, point: str
) -> None:
    post, edit = edited(engine)
    died(post, dead, point)
    applied = point in ("after the commit", "with the answer")
    assert factories.row(engine, "edits", edit).attempts == int(applied)
    # Celery hands the dead process's message out again.
    assert tasks.apply_edits([post], "me#1").get("applied", 0) == int(not applied)
    stored = factories.row(engine, "edits", edit)
    assert (stored.status, stored.attempts) == ("applied", 1 if applied else 2)
    assert Hand(dead).left() == []


@pytest.mark.parametrize("point", POINTS)
def test_rescue_finds_what_a_worker_had_in_hand_that_is_gone_for_good(
    engine: Engine, broker: redis.Redis, point: str
) -> None:
    post, edit = edited(engine)
    with engine.begin() as tx:
        tx.execute(text("UPDATE edits SET created_at = now() - interval '20 minutes'"))
    gone = "edits@gone/1f2e/7"
    died(post, gone, point)
    assert "hands" not in rescue.rescue(), "it may still work"
    broker.delete("edits", doorbells.LIST, doorbells.AWAKE)
    broker.pexpire(Hand(gone).key, 1000)
    assert rescue.rescue()["hands"] == 1
    applied = point in ("after the commit", "with the answer")
    stored = factories.row(engine, "edits", edit)
    assert (stored.status, stored.attempts) == ("applied" if applied else "queued", 1)
    assert Hand(gone).left() == []
    assert any(post in json_args(raw) for raw in broker.lrange("edits", 0, -1))
    assert tasks.apply_edits([post], None) == ({} if applied else {"applied": 1})


def test_a_worker_with_a_long_time_limit_is_not_dead_before_it(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, edit = edited(engine)
    with engine.begin() as tx:
        tx.execute(text("UPDATE edits SET created_at = now() - interval '20 minutes'"))
    busy = Hand("edits@elsewhere/1f2e/7")
    busy.take_up(Bell([post]))
    broker.pexpire(busy.key, hands.KEPT_FOR - 90_000)
    monkeypatch.setenv("REDRAFT_GRACE", "120")
    factories.forget_caches()
    assert awake.recover_dead() == 0
    monkeypatch.delenv("REDRAFT_GRACE")
    factories.forget_caches()
    assert awake.recover_dead() == 1
    assert factories.row(engine, "edits", edit).attempts == 1


def test_an_edit_that_came_after_the_dead_worker_had_taken_its_doorbell_is_not_counted(
    engine: Engine, broker: redis.Redis, dead: str
) -> None:
    post, edit = edited(engine)
    Hand(dead).take_up(Bell([post]))
    broker.pexpire(Hand(dead).key, hands.KEPT_FOR - 60_000)
    tasks.apply_edits(["post_nobody"], None)
    stored = factories.row(engine, "edits", edit)
    assert (stored.status, stored.attempts) == ("applied", 1)


def test_what_living_processes_of_the_pool_have_in_hand_is_left_to_them(engine: Engine) -> None:
    post, edit = edited(engine)
    sibling = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    hand = Hand(f"{worker_metrics.process_name().rpartition('/')[0]}/{sibling.pid}")
    hand.take_up(Bell([post]))
    tasks.apply_edits(["post_nobody"], None)
    assert hand.left() == [Bell([post])]
    sibling.communicate()
    tasks.apply_edits(["post_nobody"], None)
    assert hand.left() == []
    assert factories.row(engine, "edits", edit).attempts == 2


def test_an_earlier_run_of_the_same_worker_is_dead(engine: Engine) -> None:
    post, edit = edited(engine)
    earlier = Hand(f"{worker_metrics.worker_name()}/anotherrun/{os.getpid()}")
    earlier.take_up(Bell([post]))
    tasks.apply_edits(["post_nobody"], None)
    assert earlier.left() == []
    assert factories.row(engine, "edits", edit).attempts == 2


def test_a_poison_edit_is_failed_after_five_deaths_and_takes_no_neighbour_with_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        poison = factories.edit(tx, post, {"caption": "poison"})
        behind = factories.edit(tx, post, {"caption": "behind"})
        neighbour = factories.edit(tx, other, {"caption": "mine"})
    fail_for(monkeypatch, "poison", SystemExit)
    # A killed process gives nothing back, and the next one has another name.
    monkeypatch.setattr(EditAttempts, "__exit__", lambda *_: None)
    deaths = 0
    monkeypatch.setattr(worker_metrics, "process_name", lambda: f"{dead.rpartition('/')[0]}{deaths}/{os.getpid()}")
    for _ in range(12):
        try:
            tasks.apply_edits([post, other], None)
        except SystemExit:
            deaths += 1
    ended = {edit: factories.row(engine, "edits", edit) for edit in (poison, behind, neighbour)}
    assert [ended[edit].status for edit in (poison, behind, neighbour)] == ["failed", "applied", "applied"]
    assert (deaths, ended[poison].attempts) == (5, 5)


def test_a_transient_error_costs_no_attempt_and_sends_each_doorbell_in_hand_again(
    engine: Engine, broker: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = edited(engine), edited(engine)
    hand = awake.own_hand()
    broker.lpush(hand.key, Bell([second[0]], "you#1").raw())

    def away(tx: Any, *_: Any, **__: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with monkeypatch.context() as patch:
        patch.setattr(batches, "finalize", away)
        ended = tasks.apply_edits([first[0]], "me#1")
    assert "put_off" in ended
    again = [(arguments, properties) for arguments, properties in messages_at(redis_url, "edits")]
    assert sorted(arguments for arguments, _ in again) == sorted([[[first[0]], "me#1"], [[second[0]], "you#1"]])
    assert hand.left() == []
    for _, edit in (first, second):
        stored = factories.row(engine, "edits", edit)
        assert (stored.status, stored.attempts, stored.deferrals) == ("queued", 0, 0)


def test_a_fault_of_our_own_is_counted_and_its_neighbours_go_on_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, edit = edited(engine, "faulty")
    other, fine = edited(engine)
    fail_for(monkeypatch, "faulty", ZeroDivisionError)
    with pytest.raises(logs.RedactedError):
        tasks.apply_edits([post, other], None)
    assert awake.own_hand().left() == []
    assert [factories.row(engine, "edits", one).attempts for one in (edit, fine)] == [1, 1]
    with pytest.raises(logs.RedactedError):
        tasks.apply_edits([post, other], None)
    with pytest.raises(logs.RedactedError):
        tasks.apply_edits([other, post], None)
    assert factories.row(engine, "edits", fine).status == "applied"


def test_without_redis_the_attempt_is_counted_before_the_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    post, edit = edited(engine)
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://127.0.0.1:1/0")
    factories.forget_caches()
    with factories.statements() as seen:
        assert tasks.apply_edits([post], "me#1") == {"applied": 1}
    assert any("attempts = e.attempts + 1" in one for one in seen)
    assert factories.row(engine, "edits", edit).attempts == 1


def test_the_hand_is_empty_once_a_task_has_ended_in_any_way(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    post, _ = edited(engine)
    tasks.apply_edits([post], None)
    tasks.apply_edits(["post_nobody"], None)
    monkeypatch.setattr(apply, "drain", lambda *_, **__: 1 / 0)
    with pytest.raises(logs.RedactedError):
        tasks.apply_edits([post], None)
    eventually(lambda: awake.own_hand().left() == [], within=1)
