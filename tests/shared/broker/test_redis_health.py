"""What Redis says of itself and of the workers, asked as operators' pages and commands ask it."""

from collections.abc import Iterator

import pytest
import redis

from shared.broker import metric_snapshots, redis_health
from shared.domain.waits import Broker
from shared.task_names import QUEUES
from tests import factories
from tests.processes import Server


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[redis.Redis]:
    monkeypatch.setenv("REDRAFT_REDIS_URL", redis_url)
    factories.forget_caches()
    with redis.Redis.from_url(redis_url) as client:
        yield client
    factories.forget_caches()


def test_queues_and_the_workers_that_were_heard_of_are_counted(client: redis.Redis) -> None:
    client.lpush("edits", "a", "b")
    for name in ("edits@a/0", "edits@a/1", "ops@b/0"):
        metric_snapshots.write(name, [])
    client.delete(f"{metric_snapshots.NAMES}:edits@a/1")
    found = redis_health.read()
    assert found == Broker(
        workers=dict.fromkeys(QUEUES, 0) | {"edits": 1, "ops": 1}, waiting=dict.fromkeys(QUEUES, 0) | {"edits": 2}
    )
    assert found.silent == [queue for queue in QUEUES if queue not in {"edits", "ops"}]


def test_strange_content_hides_one_answer_and_no_other(client: redis.Redis) -> None:
    client.set(metric_snapshots.NAMES, "none of ours")
    found = redis_health.read()
    assert (found.workers, found.silent, found.waiting) == (None, [], dict.fromkeys(QUEUES, 0))


@pytest.mark.parametrize(
    ("url", "away"),
    [
        ("redis://127.0.0.1:9/0", "no connection"),
        ("{wrong}", "it refuses the password"),
        ("", ""),
    ],
)
def test_a_redis_that_does_not_answer_is_said_to_be_away(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, url: str, away: str
) -> None:
    wrong = "redis://:wrong@" + redis_url.rpartition("@")[2]
    monkeypatch.setenv("REDRAFT_REDIS_URL", url.format(wrong=wrong))
    factories.forget_caches()
    assert redis_health.read() == Broker(away=away)
    factories.forget_caches()


def test_a_full_redis_says_why_it_refuses(monkeypatch: pytest.MonkeyPatch, own_valkey: Server) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
        found = redis_health.read()
    assert "maxmemory" in found.refuses
    # Workers report through Redis: none of them is called missing.
    assert found.silent == []
    factories.forget_caches()
