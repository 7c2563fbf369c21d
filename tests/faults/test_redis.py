"""Rows 5 to 9 of docs/faults.md: Redis is stopped, emptied, frozen, cut off, or hands out a message twice."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import redis
from celery import Celery

from shared import task_names
from tests import factories
from tests import processes as real
from tests.faults.conftest import MakeHarness
from tests.faults.harness import RESCUE_PERIOD, SLACK, Harness
from tests.processes import Process, Server
from tests.waiting import eventually

LONGEST_WAIT = 20


def received_twice(output: str) -> list[str]:
    """The ids of the messages that a worker was handed more than once."""
    handed = Counter(re.findall(r"Task edits\.apply\[([0-9a-f-]+)\] received", output))
    return [message for message, times in handed.items() if times > 1]


@contextmanager
def listening(redis_url: str) -> Iterator[Callable[[], list[str]]]:
    """The kinds of the events that workers have told Flower since the block began."""
    kinds: list[str] = []

    def heard() -> list[str]:
        with suppress(TimeoutError):
            consuming.drain_events(timeout=0.1)
        return kinds

    with Celery(broker=redis_url, set_as_current=False) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: kinds.append(event["type"])})
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):
            heard()  # only now does it subscribe
            yield heard


def stop_redis(harness: Harness, valkey: Server, seconds: float) -> None:
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    with harness.load(posts) as load:
        flying = harness.send(posts[5], {"caption": "linger-8"}, "flying", Prefer="respond-async")
        eventually(lambda: f"struck linger-8 {flying.edit_id}" in worker.output(), within=30)
        stopped = time.time()
        valkey.stop()
        harness.note("Redis is stopped")
        while time.time() < stopped + seconds:
            before, answer = load.accepted, None
            answer = harness.send(
                posts[6], {"caption": f"{time.time()}"}, f"down-{time.time()}", Prefer="respond-async"
            )
            assert answer.status == 202, answer
            assert answer.answered is not None
            assert answer.answered - answer.sent < SLACK
            eventually(lambda before=before: load.accepted > before, within=30, because="clients are still answered")
            time.sleep(0.2)
        assert not valkey.process.running
        valkey.start()
        started = time.time()
        harness.note("Redis is back")
        again = harness.send(posts[7], {"caption": "again"}, "again", Prefer="wait=30")
        assert (again.status, again.answered is not None) == (200, True), again
        harness.note(f"the first edit was applied {time.time() - started:.1f} s after the start")
    assert worker.running, "a worker must outlive its broker"
    assert load.slowest(since=stopped, until=started) < LONGEST_WAIT + SLACK
    assert {one.status for one in load.exchanges if one.status is None or one.status >= 500} == set()
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


@pytest.fixture
def redis_harness(make_harness: MakeHarness, database_url: str, own_valkey: Server) -> Harness:
    return make_harness(database_url, own_valkey.url)


def test_row_05_redis_stopped_for_three_seconds_stops_neither_the_api_nor_the_workers_for_good(
    redis_harness: Harness, own_valkey: Server
) -> None:
    stop_redis(redis_harness, own_valkey, 3)


@pytest.mark.faults
def test_row_05_redis_stopped_for_a_minute(redis_harness: Harness, own_valkey: Server) -> None:
    stop_redis(redis_harness, own_valkey, 60)


def test_row_06_an_emptied_redis_loses_no_edit(redis_harness: Harness, own_valkey: Server) -> None:
    harness = redis_harness
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.start_worker()
    times: list[float] = []
    with harness.load(posts) as load, redis.Redis.from_url(own_valkey.url) as client:
        for number in range(3):
            before = load.accepted
            client.set("sentinel", number)
            client.flushall()
            assert client.get("sentinel") is None
            harness.note("FLUSHALL")
            eventually(lambda before=before: load.accepted > before + 20, within=30)
            for count in range(3):
                name = f"after-{number}-{count}"
                answer = harness.send(posts[6], {"caption": name}, name, Prefer="wait=20")
                assert (answer.status, answer.answered is not None) == (200, True), answer
                times.append((answer.answered or 0) - answer.sent)
    # Rung for again, not only rescued.
    assert sorted(times)[len(times) // 2] < RESCUE_PERIOD / 4, times
    harness.drained(within=2 * RESCUE_PERIOD)
    assert worker.running
    harness.judge()


def test_row_06_edits_queued_while_redis_held_their_bells_survive_its_restart_with_nothing_on_disk(
    make_harness: MakeHarness, database_url: str
) -> None:
    with real.valkey(appendonly="no", save='""') as forgetful:
        harness = make_harness(database_url, forgetful.url)
        posts = harness.populate()
        harness.start_api()
        # Nobody works yet: what is accepted now is known to the rows and to bells in Redis.
        waiting = [harness.send(post, {"caption": "w"}, f"w-{post}", Prefer="respond-async") for post in posts]
        assert {answer.status for answer in waiting} == {202}
        with redis.Redis.from_url(forgetful.url) as client:
            eventually(lambda: client.llen("edits") > 0, within=30, because="a bell was rung")
        # What it still had to ring it rings before it ends: nothing is rung anew after Redis has forgotten.
        assert harness.api is not None
        harness.api.stop(within=10)
        forgetful.process.kill()
        forgetful.start()
        harness.note("Redis was killed and has forgotten everything")
        with redis.Redis.from_url(forgetful.url) as client:
            assert client.llen("edits") == 0
        harness.start_api().start_ops()
        harness.start_worker()
        # Nobody edits these posts again, so that no new bell speaks of them: rescue has to.
        with harness.load(harness.populate(4), clients=3):
            eventually(
                lambda: {harness.row("edits", str(one.edit_id)).status for one in waiting} == {"applied"}, within=30
            )
        harness.drained(within=2 * RESCUE_PERIOD)
        assert harness.judge() >= len(posts)


def freeze_redis(harness: Harness, valkey: Server, seconds: float) -> None:
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.start_worker()
    with harness.load(posts) as load:
        frozen = time.time()
        valkey.process.freeze()
        harness.note("Redis is frozen")
        while time.time() < frozen + seconds:
            answer = harness.send(posts[6], {"caption": f"{time.time()}"}, f"ice-{time.time()}", Prefer="respond-async")
            assert answer.status == 202, answer
            assert answer.answered is not None
            assert answer.answered - answer.sent < SLACK
            time.sleep(0.2)
        valkey.process.thaw()
        thawed = time.time()
        harness.note("Redis is thawed")
        eventually(lambda: harness.queued() < 20, within=60, because="workers recover within 60 s of thawing")
        again = harness.send(posts[7], {"caption": "again"}, "again", Prefer="wait=30")
        assert again.status == 200, again
        harness.note(f"recovered {time.time() - thawed:.1f} s after thawing")
    assert worker.running
    assert load.slowest(since=frozen, until=thawed) < LONGEST_WAIT + SLACK
    assert {one.status for one in load.exchanges if one.status is None or one.status >= 500} == set()
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


@pytest.mark.faults
def test_row_07_redis_frozen_for_five_seconds(redis_harness: Harness, own_valkey: Server) -> None:
    freeze_redis(redis_harness, own_valkey, 5)


@pytest.mark.faults
def test_row_07_redis_frozen_for_a_minute(redis_harness: Harness, own_valkey: Server) -> None:
    freeze_redis(redis_harness, own_valkey, 60)


def test_row_07_a_redis_that_is_frozen_while_a_task_ends_leaves_its_worker_taking_messages(
    redis_harness: Harness, own_valkey: Server
) -> None:
    harness = redis_harness
    posts = harness.populate(2)
    with harness.engine.begin() as tx:
        ends_frozen, again = (
            factories.edit(tx, post, {"caption": caption})
            for post, caption in zip(posts, ("linger-2", "again"), strict=True)
        )
    # The only place of its worker, and no rescue that would ring again. A heartbeat would wait for Redis first.
    worker = harness.crashing_worker("--concurrency=1", "--without-heartbeat")
    with Celery(broker=own_valkey.url, set_as_current=False) as sender:
        with listening(own_valkey.url) as heard:
            sender.send_task(task_names.EDITS_APPLY, args=[posts[:1]], queue="edits")
            eventually(lambda: "task-started" in heard(), within=30)
        assert f"struck linger-2 {ends_frozen}" in worker.output()
        own_valkey.process.freeze()
        worker.says("Couldn't ack", within=30)
        own_valkey.process.thaw()
        sender.send_task(task_names.EDITS_APPLY, args=[posts[1:]], queue="edits")
    eventually(lambda: harness.row("edits", again).status == "applied", within=30)


def came_again(harness: Harness, worker: Process) -> None:
    """Wait until the worker is handed a message that it still works on."""

    def overlapping() -> bool:
        output = worker.output()
        # The second run finds nothing to do and ends at once; the first goes on while fewer have ended than began.
        return any(
            output.count(f"edits.apply[{message}] succeeded") < output.count(f"edits.apply[{message}] received")
            for message in received_twice(output)
        )

    eventually(overlapping, within=45, because="a message comes again while its first run goes on")
    harness.note(f"came again: {received_twice(worker.output())}")


@pytest.mark.faults
def test_row_08_every_connection_to_redis_reset_while_a_task_runs_makes_two_runs_and_one_effect(
    redis_harness: Harness, own_valkey: Server
) -> None:
    harness = redis_harness
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.crashing_worker("--concurrency=3")
    with harness.load(posts, clients=3), redis.Redis.from_url(own_valkey.url) as client:
        first = harness.send(posts[5], {"caption": "linger-30"}, "fly", Prefer="respond-async")
        eventually(lambda: f"struck linger-30 {first.edit_id}" in worker.output(), within=30)
        struck = time.time()
        for number in range(3):
            cut = sum(client.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub"))
            assert cut >= 3
            harness.note(f"cut {cut} connections")
            # The same post's edits are run beside the task that still lingers, and nobody waits for that one's end.
            again = harness.send(posts[5], {"caption": f"again {number}"}, f"again-{number}", Prefer="wait=20")
            assert again.status == 200, again
            slow = harness.send(posts[6], {"caption": f"slow {number}"}, f"slow-{number}", Prefer="respond-async")
            eventually(lambda edit=slow.edit_id: f"struck slow {edit}" in worker.output(), within=30)
        assert time.time() < struck + 30, "the first run must still have been under way"
    assert worker.running
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


def test_row_08_after_a_reset_of_its_connections_a_worker_still_tells_flower_of_each_task_at_once(
    redis_harness: Harness, own_valkey: Server
) -> None:
    harness = redis_harness
    (post,) = harness.populate(1)
    harness.start_api()
    worker = harness.start_worker()
    with redis.Redis.from_url(own_valkey.url) as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
    worker.says("onnection to broker lost", within=30)
    # Taken by the new connections; few enough events wait with it to be no batch.
    assert harness.send(post, {"caption": "first"}, "first", Prefer="wait=20").status == 200
    with listening(own_valkey.url) as heard:
        assert harness.send(post, {"caption": "second"}, "second", Prefer="wait=20").status == 200
        eventually(lambda: "task-succeeded" in heard(), within=20, because="the end of one task waits for no batch")


@pytest.mark.faults
def test_row_09_a_visibility_timeout_shorter_than_the_task_hands_it_out_twice_with_one_effect(
    make_harness: MakeHarness, database_url: str, own_valkey: Server
) -> None:
    harness = make_harness(database_url, own_valkey.url, REDRAFT_VISIBILITY_TIMEOUT="1")
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.crashing_worker("--include=tests.faults.crashes,tests.faults.impatient", "--concurrency=3")
    with harness.load(posts, clients=3):
        for number in range(2):
            harness.send(posts[5], {"caption": f"linger-30 {number}"}, f"fly-{number}", Prefer="respond-async")
            eventually(lambda n=number: worker.output().count("struck linger") > n, within=30)
        came_again(harness, worker)
        again = harness.send(posts[6], {"caption": "again"}, "again", Prefer="wait=30")
        assert again.status == 200
    assert worker.running
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()
