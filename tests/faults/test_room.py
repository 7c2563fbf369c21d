"""Rows 20, 21 and 22 of docs/faults.md: Redis or PostgreSQL's disk full, Flower gone, a transaction left idle."""

import time

import httpx
import psutil
import pytest
import redis
from sqlalchemy import text

from tests.faults.conftest import MakeHarness
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.loopback import LOOPBACK
from tests.processes import Server
from tests.waiting import eventually

MEBIBYTE = 1024 * 1024


def figure(harness: Harness, name: str) -> float:
    """The sum of a metric's samples whose line begins with `name`."""
    lines = harness.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.faults
def test_row_20_redis_out_of_memory_leaves_queued_edits_that_are_applied_when_it_has_room(
    make_harness: MakeHarness, database_url: str, own_valkey: Server
) -> None:
    harness = make_harness(database_url, own_valkey.url)
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.start_worker()
    with harness.load(posts) as load, redis.Redis.from_url(own_valkey.url) as client:
        failed = figure(harness, 'redraft_doorbells_total{outcome="failed"}')
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            client.set("anything", "at all")
        since = time.time()
        harness.note("Redis is out of memory")
        while time.time() < since + 8:
            name = f"full-{time.time()}"
            answer = harness.send(posts[6], {"caption": name}, name, Prefer="respond-async")
            assert answer.status == 202, answer
            time.sleep(0.1)
        eventually(lambda: figure(harness, 'redraft_doorbells_total{outcome="failed"}') > failed, within=30)
        client.config_set("maxmemory", 0)
        harness.note("Redis has room again")
        assert load.slowest(since=since) < 25
        again = harness.send(posts[7], {"caption": "again"}, "again", Prefer="wait=30")
        assert again.status == 200, again
    assert {one.status for one in load.exchanges if one.status is None or one.status >= 500} == set()
    assert worker.running
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


# Posts before edits, as everybody locks them: the other way round, and a worker in between, is a deadlock.
FULL = """
    CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON posts FOR EACH STATEMENT EXECUTE FUNCTION disk_full();
    CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON edits FOR EACH STATEMENT EXECUTE FUNCTION disk_full()"""
ROOM = "DROP TRIGGER disk_full ON posts; DROP TRIGGER disk_full ON edits; DROP FUNCTION disk_full()"


@pytest.mark.faults
def test_row_20_a_full_disk_under_postgresql_is_a_503_and_leaves_no_half_state(harness: Harness) -> None:
    """The server refuses every write with the error of a full disk; the error is raised, no disk is filled."""
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.start_worker()
    with harness.load(posts, patience=90) as load:
        with harness.engine.begin() as tx:
            tx.execute(text(FULL))
        harness.note("the disk is full")
        answers = [harness.send(posts[6], {"caption": f"f{n}"}, f"full-{n}", Prefer="wait=1") for n in range(5)]
        assert {(answer.status, "retry-after" in answer.headers) for answer in answers} == {(503, True)}, answers
        assert (
            figure(harness, 'redraft_http_requests_total{method="PATCH",route="/v1/posts/{post_id}",status="503"') >= 5
        )
        with harness.engine.begin() as tx:
            tx.execute(text(ROOM))
        harness.note("there is room again")
        before = load.accepted
        eventually(lambda: load.accepted > before + 20, within=30)
        again = harness.send(posts[7], {"caption": "again"}, "again", Prefer="wait=20")
        assert again.status == 200, again
    assert worker.running
    harness.drained(within=2 * RESCUE_PERIOD)
    # No attempt was spent on what was nobody's fault.
    assert harness.scalar("SELECT max(attempts) FROM edits") == 1
    harness.judge()


@pytest.mark.faults
def test_row_21_a_flower_that_is_frozen_or_gone_has_no_effect(
    make_harness: MakeHarness, database_url: str, own_valkey: Server
) -> None:
    harness = make_harness(database_url, own_valkey.url)
    posts = harness.populate()
    harness.start_api().start_ops()
    harness.start_worker()
    flower = harness.processes.start("flower", **harness.environment, FLOWER_BASIC_AUTH="flower:password")

    def up() -> bool:
        try:
            return httpx.get(flower.url, auth=("flower", "password"), **LOOPBACK).status_code == 200
        except httpx.TransportError:
            return False

    eventually(up, within=30, because="Flower answers")
    with harness.load(posts) as load, redis.Redis.from_url(own_valkey.url) as client:
        flower.freeze()
        pids = (flower.pid, *flower.tree())
        eventually(lambda: {psutil.Process(pid).status() for pid in pids} == {psutil.STATUS_STOPPED}, within=30)
        since = time.time()
        eventually(lambda: time.time() > since + 10, within=30)
        flower.kill()
        gone = time.time()
        eventually(lambda: time.time() > gone + 5, within=30)
        assert load.slowest(since=since) < 3
        assert client.info("memory")["used_memory"] < 64 * MEBIBYTE
    harness.drained(within=RESCUE_PERIOD)
    harness.judge()


@pytest.mark.faults
def test_row_22_a_transaction_left_idle_shows_in_a_metric_and_one_of_ours_is_ended(harness: Harness) -> None:
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    with harness.load(posts[:5], clients=3) as load, harness.engine.connect() as person:
        person.execute(text("SELECT txid_current()"))
        eventually(lambda: figure(harness, "redraft_idle_transaction_seconds ") > 8, within=40, every=0.5)
        assert person.execute(text("SELECT 1")).scalar() == 1, "a person's is left alone"
        since = time.time()
        frozen = harness.send(posts[6], {"caption": "freeze"}, "freeze", Prefer="wait=25")
        assert "struck freeze" in worker.output()
        assert frozen.status == 200, frozen
        assert 4 < time.time() - since < 25, "ours is ended after 5 s, and its edit applied by another"
        assert load.accepted
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()
