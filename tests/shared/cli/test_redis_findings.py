"""What `redraft doctor` finds about Redis: one that forgets, drops, refuses writes or cannot save."""

from pathlib import Path

import pytest
import redis

from shared.broker import redis_state
from shared.cli import probes
from shared.cli.facts import Facts, Finding
from shared.cli.findings import diagnose
from tests import factories
from tests.processes import Server
from tests.waiting import eventually


def test_a_redis_that_forgets_or_drops_is_found(monkeypatch: pytest.MonkeyPatch, own_valkey: Server) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()

    def codes() -> set[str]:
        return {finding.code for finding in diagnose(Facts(None, probes._redis(), None))}

    assert codes() == set()
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert codes() == {"redis_eviction"}
        client.config_set("appendonly", "no")
        assert codes() == {"redis_eviction", "redis_persistence"}
    factories.forget_caches()


def redis_codes() -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(Facts(None, probes._redis(), None))}


def test_a_redis_that_refuses_writes_is_found_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Server
) -> None:
    """Red before: a Redis that answers questions was taken for one that works."""
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        assert redis_codes() == {}
        assert 0 < client.ttl(redis_state.TRIAL_KEY) <= redis_state.TRIAL_KEPT
        client.config_set("maxmemory", 1)
        full = redis_codes()
        # One finding with its cause: no second one with a senseless percentage.
        assert set(full) == {"redis_refuses_writes"}
        assert "maxmemory" in full["redis_refuses_writes"].what
        assert "and its maxmemory is 1 B." in full["redis_refuses_writes"].todo
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 9)
        assert "read only replica" in redis_codes()["redis_refuses_writes"].what
        client.replicaof("NO", "ONE")
        assert redis_codes() == {}
    factories.forget_caches()


def test_of_a_redis_that_refuses_writes_the_workers_that_could_not_be_asked_are_no_second_finding(
    monkeypatch: pytest.MonkeyPatch, database_url: str, own_valkey: Server
) -> None:
    """Red before: "The workers could not be looked at: OutOfMemoryError"."""
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
        codes = [one.code for one in diagnose(probes.examine(database_url))]
        client.config_set("maxmemory", 0)
    assert codes == ["redis_refuses_writes"]
    factories.forget_caches()


def test_a_redis_whose_snapshot_failed_is_found_although_it_has_an_append_only_file(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Server
) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        folder, name = (client.config_get(one)[one] for one in ("dir", "dbfilename"))
        # Where the snapshot is to go, a folder stands in its way.
        (Path(folder) / name).unlink(missing_ok=True)
        (Path(folder) / name / "x").mkdir(parents=True)
        client.config_set("save", "1 1")
        client.set("anything", "1")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", within=30)
        codes = redis_codes()
    assert set(codes) == {"redis_saving_fails", "redis_refuses_writes"}
    assert "MISCONF" in codes["redis_refuses_writes"].what
    factories.forget_caches()
