"""What Flower hears of quiet tasks: those that did something, failed, or take long. Never those that found nothing."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from celery import Celery
from sqlalchemy import text

from shared import task_names
from tests import factories
from tests.api.test_metrics import STALE, figures, total
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually
from worker.runtime.events import Withheld

RECEIVED = ("task-received", {"uuid": "a", "name": task_names.POSTS_DISPATCH_DUE})
STARTED = ("task-started", {"uuid": "a"})
ANOTHER = ("task-started", {"uuid": "b"})


def succeeded(result: str) -> tuple[str, dict[str, Any]]:
    return ("task-succeeded", {"uuid": "a", "result": result})


@pytest.mark.parametrize(
    ("events", "sent"),
    [
        ([RECEIVED], []),
        ([RECEIVED, STARTED], []),
        ([RECEIVED, STARTED, succeeded("{}")], []),
        ([RECEIVED, STARTED, succeeded("{'enqueued': 1}")], [RECEIVED, STARTED, succeeded("{'enqueued': 1}")]),
        ([RECEIVED, STARTED, ("task-failed", {"uuid": "a"})], [RECEIVED, STARTED, ("task-failed", {"uuid": "a"})]),
        ([RECEIVED, ("task-revoked", {"uuid": "a"})], [RECEIVED, ("task-revoked", {"uuid": "a"})]),
        ([RECEIVED, ANOTHER], [ANOTHER]),
        ([STARTED, succeeded("{}")], [STARTED, succeeded("{}")]),
        ([("task-received", {"uuid": "a", "name": task_names.EDITS_APPLY})],) * 2,
        ([("worker-heartbeat", {"freq": 2})],) * 2,
        # Handed out twice: the second run is judged by itself.
        ([RECEIVED, STARTED, RECEIVED, STARTED, succeeded("{}")], []),
    ],
)
def test_what_found_nothing_to_do_is_not_told(events: list[Any], sent: list[Any]) -> None:
    withheld = Withheld()
    assert [one for event in events for one in withheld.pass_on(*event)] == sent


def test_what_takes_long_is_told_as_it_goes_on() -> None:
    withheld = Withheld()
    assert withheld.pass_on(*RECEIVED) + withheld.pass_on(*STARTED) == []
    assert withheld.release("a") == [RECEIVED, STARTED]
    assert withheld.release("a") == []
    assert withheld.pass_on(*succeeded("{}")) == [succeeded("{}")]


@pytest.fixture
def stack(database_url: str, redis_url: str) -> Iterator[Running]:
    with running(database_url, redis_url, "ops") as stack:
        yield stack


def test_flower_hears_of_a_dispatch_that_sent_something_and_of_no_other(stack: Running, redis_url: str) -> None:
    heard: list[dict[str, Any]] = []
    with (
        Celery(broker=redis_url, set_as_current=False) as app,
        app.connection() as connection,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):

            def of(kind: str) -> list[dict[str, Any]]:
                with suppress(TimeoutError):
                    consuming.drain_events(timeout=0.1)
                return [event for event in heard if event["type"] == kind]

            def ended(name: str) -> bool:
                assert stack.api is not None
                found = figures(httpx.get(f"{stack.api.url}/metrics", **LOOPBACK, timeout=30))
                return bool(total(found, "redraft_tasks_total", task=name))

            of("")
            for name in (task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE):
                app.send_task(name, queue="ops")
            for name in (task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE):
                eventually(lambda name=name: ended(name), within=STALE, every=0.3)
            with stack.engine.begin() as tx:
                factories.post(tx, scheduled_time=factories.soon(-1))
            app.send_task(task_names.POSTS_DISPATCH_DUE, queue="ops")
            (end,) = eventually(lambda: of("task-succeeded"), within=30)
            assert end["result"] == "{'enqueued': 1}"
            (received,) = of("task-received")
            assert (received["uuid"], received["name"]) == (end["uuid"], task_names.POSTS_DISPATCH_DUE)
            (started,) = of("task-started")
            assert received["timestamp"] <= started["timestamp"] <= end["timestamp"]


def test_a_dispatch_that_hangs_is_seen_while_it_hangs(stack: Running, redis_url: str) -> None:
    kinds: list[str] = []
    with (
        stack.engine.begin() as person,
        Celery(broker=redis_url, set_as_current=False) as app,
        app.connection() as connection,
    ):
        person.execute(text("LOCK TABLE posts IN ACCESS EXCLUSIVE MODE"))
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: kinds.append(event["type"])})
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):

            def heard() -> list[str]:
                with suppress(TimeoutError):
                    consuming.drain_events(timeout=0.1)
                return kinds

            heard()
            app.send_task(task_names.POSTS_DISPATCH_DUE, queue="ops")
            eventually(lambda: "task-started" in heard(), within=30)
