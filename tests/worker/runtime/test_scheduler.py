"""Beat rings dispatch and rescue for ever, and yet an hour without workers fills nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import celery.beat
import pytest
import redis
from celery import Celery

from shared import task_names
from shared.broker import queue
from shared.settings import settings
from tests import factories
from tests.processes import Processes
from tests.stack import Running
from tests.waiting import eventually
from worker.runtime.scheduler import Scheduler

DISPATCH, RESCUE = task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE
PERIODS = {DISPATCH: 1.0, RESCUE: 5.0}


class Bench:
    """Beat's scheduler on a clock that is set by hand, its sends noted instead of made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.sent: list[str] = []
        self.waiting = 0
        self.app = Celery(set_as_current=False)
        monkeypatch.setattr(self.app, "now", lambda: self.now)
        self.app.conf.beat_schedule = {name: {"task": name, "schedule": period} for name, period in PERIODS.items()}
        monkeypatch.setattr(celery.beat.Scheduler, "apply_entry", lambda _, entry, __: self._send(entry.task))
        monkeypatch.setattr(queue, "free_capacity", lambda _: max(0, settings().queue_full - self.waiting))
        self.scheduler = Scheduler(self.app, lazy=False)
        self.scheduler.__dict__["producer"] = None

    def _send(self, task: str) -> None:
        self.sent.append(task)
        self.waiting += 1

    def pass_by(self, seconds: int) -> list[str]:
        """What was sent while so much time went by."""
        before = len(self.sent)
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            while self.scheduler.tick() == 0:
                pass
        return self.sent[before:]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(monkeypatch)
    yield bench
    bench.app.close()


def test_each_task_is_sent_once_a_period(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "free_capacity", lambda _: settings().queue_full)
    sent = bench.pass_by(20)
    assert (sent.count(DISPATCH), sent.count(RESCUE)) == (20, 4)


def test_an_hour_without_workers_leaves_a_few_messages_rescues_among_them_and_then_all_flows_again(
    bench: Bench,
) -> None:
    sent = bench.pass_by(3600)
    assert sent.count(DISPATCH) == pytest.approx(queue.WAITING_BEATS, abs=2)
    assert len(sent) == 2 * queue.WAITING_BEATS
    bench.waiting = 0
    sent = bench.pass_by(6)
    assert (sent.count(DISPATCH), sent.count(RESCUE)) == (6, 1)


def test_workers_that_keep_up_with_little_still_get_every_rescue(bench: Bench) -> None:
    """Dispatch alone would fill whatever room they make."""
    bench.pass_by(60)
    rescues = 0
    for _ in range(10):
        bench.waiting -= 2
        rescues += bench.pass_by(5).count(RESCUE)
    assert rescues == 10


def test_nothing_is_sent_while_redis_cannot_say_how_many_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "free_capacity", lambda _: 0)
    assert bench.pass_by(20) == []
    monkeypatch.setattr(queue, "free_capacity", lambda _: settings().queue_full)
    assert DISPATCH in bench.pass_by(2)


def test_a_clock_that_is_set_back_by_an_hour_costs_a_period_at_most(bench: Bench) -> None:
    bench.waiting = -1000
    bench.pass_by(10)
    bench.now -= timedelta(hours=1)
    sent = bench.pass_by(10)
    assert sent.count(DISPATCH) >= 9
    assert sent.count(RESCUE) >= 1


def test_without_workers_the_queue_of_a_running_beat_stays_short_and_with_them_all_flows_again(
    running: Running, redis_url: str
) -> None:
    beat = running.processes.start(
        "beat", REDRAFT_LOG_LEVEL="DEBUG", REDRAFT_DISPATCH_PERIOD="0.02", REDRAFT_RESCUE_PERIOD="0.05",
        **running.environment,
    )  # fmt: skip
    with redis.Redis.from_url(redis_url) as broker:
        eventually(lambda: beat.output().count("beat_waits") > 200, within=40)
        assert broker.llen("ops") == 2 * queue.WAITING_BEATS == beat.output().count("Sending due task")
        post = running.post(scheduled_time=factories.soon(0))
        running.start_worker("ops")
        eventually(lambda: running.row("posts", post).enqueued_at, within=30)
        eventually(lambda: beat.output().count("Sending due task") > 4 * queue.WAITING_BEATS, within=30)
        assert broker.llen("ops") <= 2 * queue.WAITING_BEATS


@pytest.fixture
def running(processes: Processes, database_url: str, redis_url: str) -> Iterator[Running]:
    stack = Running(processes, database_url, redis_url)
    yield stack
    stack.close()
