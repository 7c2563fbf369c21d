"""What we lay on a queue is what Celery would have laid there."""

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import structlog

from shared import task_names
from shared.broker import celery_message, doorbells, queue, redis_connection
from tests import factories

DIFFERENT = {
    ("headers", "id"),
    ("headers", "root_id"),
    ("properties", "correlation_id"),
    ("properties", "delivery_tag"),
}
"""What no two messages share."""

ARGS = [["post_1", "post_ü"], "redraft:answers:1#2"]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[redis.Redis]:
    monkeypatch.setenv("REDRAFT_REDIS_URL", redis_url)
    factories.forget_caches()
    with redis.Redis.from_url(redis_url) as client:
        yield client
    factories.forget_caches()


def on(broker: redis.Redis, name: str) -> dict[str, Any]:
    """The one message on a queue, its body read."""
    raw: Any = broker.rpop(name)
    assert broker.llen(name) == 0
    made: dict[str, Any] = json.loads(raw)
    made["body"] = json.loads(base64.b64decode(made["body"]))
    return made


def flat(made: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Its fields, by where they stand."""
    found = {(part, name): value for part in ("headers", "properties") for name, value in made[part].items()}
    return found | {("", name): value for name, value in made.items() if name not in ("headers", "properties")}


@pytest.mark.parametrize("task", sorted(task_names.QUEUE_OF))
def test_a_message_of_ours_differs_from_celery_s_in_what_no_two_messages_share(task: str, broker: redis.Redis) -> None:
    name = task_names.QUEUE_OF[task]
    queue.sender().send_task(task, args=ARGS, argsrepr="(post_1 +1)", kwargsrepr="", headers={"parents": ["a"]})
    theirs = flat(on(broker, name))
    broker.lpush(
        name, celery_message.message(queue.sender(), task, ARGS, shown="(post_1 +1)", headers={"parents": ["a"]})
    )
    ours = flat(on(broker, name))
    assert {place for place in theirs | ours if theirs.get(place) != ours.get(place)} == DIFFERENT
    assert ours["headers", "id"] == ours["headers", "root_id"] == ours["properties", "correlation_id"]
    assert ours.keys() == theirs.keys()


@pytest.mark.usefixtures("broker")
def test_no_two_messages_are_one_to_a_worker() -> None:
    made = [
        json.loads(celery_message.message(queue.sender(), task_names.OPS_RESCUE, [], shown="()")) for _ in range(100)
    ]
    assert len({one["headers"]["id"] for one in made}) == 100
    assert len({one["properties"]["delivery_tag"] for one in made}) == 100


def test_a_countdown_is_the_instant_that_celery_would_have_named(broker: redis.Redis) -> None:
    queue.sender().send_task(task_names.EDITS_APPLY, args=[["post_1"], None], countdown=90)
    theirs = datetime.fromisoformat(on(broker, "edits")["headers"]["eta"])
    assert queue.ring_contended("token", 90)
    ours = datetime.fromisoformat(on(broker, "edits")["headers"]["eta"])
    assert theirs.utcoffset() == ours.utcoffset() == timedelta(0)
    assert abs(ours - theirs) < timedelta(seconds=30)
    assert ours > datetime.now(UTC) + timedelta(seconds=60)


@pytest.mark.usefixtures("broker")
def test_a_broker_that_is_away_is_told_of_by_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "log", structlog.get_logger())  # a logger keeps the stream of its first line
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://127.0.0.1:1/0")
    factories.forget_caches()
    assert not doorbells.ring(["post_1"])
    assert asyncio.run(rung_on_a_loop(["post_1"])) == "failed"
    assert queue.free_capacity("edits") == 0


def test_a_doorbell_of_an_event_loop_is_the_same_message(broker: redis.Redis) -> None:
    assert doorbells.ring(["post_1", "post_2"], "here#1")
    by_a_thread = flat(on(broker, "edits"))
    assert asyncio.run(rung_on_a_loop(["post_1", "post_2"], "here#1")) == "sent"
    on_a_loop = flat(on(broker, "edits"))
    assert {place for place in by_a_thread | on_a_loop if by_a_thread.get(place) != on_a_loop.get(place)} == DIFFERENT


async def rung_on_a_loop(post_ids: list[str], reply_to: str | None = None) -> str:
    async with redis_connection.client_on_loop() as client:
        return await doorbells.ring_on_loop(client, post_ids, reply_to)
