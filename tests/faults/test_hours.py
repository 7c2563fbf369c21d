"""An hour without workers, without Redis, without the publisher: nothing fills up, and what waited goes in its turn.

Time is compressed: what comes round each five seconds comes each twentieth of a second here, as often as in an hour.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import redis
from sqlalchemy import text

from shared import task_names
from shared.broker import queue
from tests import factories
from tests.faults.conftest import MakeHarness
from tests.faults.evidence import Call
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.processes import Process, Server
from tests.waiting import eventually

PERIOD = 0.05
HOUR = 3600 / RESCUE_PERIOD * PERIOD
QUEUE_FULL = 40
CALLS = 8
MEBIBYTE = 1024 * 1024
HASTE = {
    "REDRAFT_RESCUE_PERIOD": str(PERIOD),
    "REDRAFT_DISPATCH_PERIOD": str(PERIOD),
    "REDRAFT_QUEUE_FULL": str(QUEUE_FULL),
    "REDRAFT_PUBLISH_CALLS": str(CALLS),
}
TRIES = re.compile(r"Trying again in ([0-9.]+) seconds")
# Each debug line of so many rounds would make a test of the log.
QUIET = {"REDRAFT_LOG_LEVEL": "INFO"}


class Publisher(ThreadingHTTPServer):
    """Says yes to every call after `takes` seconds, and knows how many it had at once. Not there until `open`ed."""

    daemon_threads = True
    request_queue_size = 256
    takes = 0.05

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer, bind_and_activate=False)
        # Bound and not listening: every connection is refused, and nobody else takes the port.
        self.server_bind()
        self.calls: list[Call] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def open(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """One call; `protocol_version` is HTTP/1.0, so that none keeps a thread."""

    def do_POST(self) -> None:
        publisher = self.server
        assert isinstance(publisher, Publisher)
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        with publisher.lock:
            publisher.calls.append(Call(time.time(), self.headers["idempotency-key"], body))
            publisher.at_once += 1
            publisher.most_at_once = max(publisher.most_at_once, publisher.at_once)
        time.sleep(publisher.takes)
        with publisher.lock:
            publisher.at_once -= 1
        said = b'{"platformPostId": "p_1"}'
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher() as publisher:
        yield publisher
        if publisher.calls:
            publisher.shutdown()


@dataclass
class Watch:
    """The most that was ever seen waiting on each queue and in workers' hands, and what Redis needed for all of it."""

    url: str
    most: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*task_names.QUEUES, "unacked"), 0))
    memory: int = 0
    looks: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            while not self.over.wait(0.05):
                try:
                    for name in task_names.QUEUES:
                        self.most[name] = max(self.most[name], client.llen(name))
                    self.most["unacked"] = max(self.most["unacked"], client.hlen("unacked"))
                    self.memory = max(self.memory, client.info("memory")["used_memory"])
                    self.looks += 1
                except redis.RedisError:
                    continue

    def holds(self, *, tried: int = 0) -> None:
        """No queue holds more than it may , whoever rings. `tried`: posts that each wait for their next try."""
        assert self.looks > 20
        assert self.most["ops"] <= 3 * queue.WAITING_BEATS, self.most
        # The API rings without looking, at most two bells each five seconds.
        assert self.most["edits"] <= QUEUE_FULL + 2 * HOUR / RESCUE_PERIOD + 10, self.most
        assert self.most["publish"] <= QUEUE_FULL + tried, self.most
        assert self.most["unacked"] <= 2 * QUEUE_FULL + 2 * tried, self.most
        assert self.memory < 64 * MEBIBYTE, self.memory


@contextmanager
def watched(url: str) -> Iterator[Watch]:
    watch = Watch(url)
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        thread.join()


@pytest.fixture
def hasty(make_harness: MakeHarness, database_url: str, own_valkey: Server, publisher: Publisher) -> Harness:
    url = f"http://127.0.0.1:{publisher.server_address[1]}/publish"
    return make_harness(database_url, own_valkey.url, **HASTE, **QUIET, REDRAFT_PUBLISHER_URL=url)


def pass_time(seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > until, within=seconds + 5, every=0.2)


def overdue(harness: Harness, count: int) -> list[str]:
    """Posts whose time has gone by, a minute apart."""
    with harness.engine.begin() as tx:
        ids = [factories.post(tx, scheduled_time=factories.soon(-5 - count + n)) for n in range(count)]
    harness.remember(ids)
    return ids


def all_posted(harness: Harness, posts: list[str]) -> bool:
    left = harness.scalar("SELECT count(*) FROM posts WHERE id = ANY(:ids) AND status <> 'posted'", ids=posts)
    return bool(left == 0)


def went_out_once(harness: Harness, publisher: Publisher, posts: list[str], within: float) -> None:
    """Each of them once, never more side by side than there is room for, and no queue kept what was for them."""
    eventually(lambda: all_posted(harness, posts), within=within, every=0.2, because="all of them go out")
    harness.note(f"{len(publisher.calls)} calls, {publisher.most_at_once} at once at most")
    assert len(publisher.calls) == len(posts)
    assert publisher.most_at_once == CALLS, "all the room there is was needed, and no more taken"
    assert harness.scalar("SELECT count(*) FROM publish_attempts WHERE outcome = 'done'") == len(posts)


def memory(*processes: Process) -> int:
    """Bytes that they and their children hold, shared pages counted in each."""
    pids = [pid for process in processes for pid in (process.pid, *process.tree())]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def rows_in(harness: Harness, table: str) -> int:
    return int(harness.scalar(f"SELECT count(*) FROM {table}"))


@pytest.mark.faults
def test_hours_without_workers_fill_no_queue_and_what_waited_goes_once_and_in_order(
    hasty: Harness, own_valkey: Server, publisher: Publisher
) -> None:
    harness = hasty
    posts = harness.populate()
    publisher.open()
    harness.start_api()
    beat = harness.start_beat()
    due = overdue(harness, 200)
    with watched(own_valkey.url) as watch:
        with harness.load(posts, clients=12, pause=0.1):
            pass_time(HOUR)
            harness.note(f"an hour without any worker: {watch.most}")
            assert watch.most["ops"] > 0, "beat has rung"
            # Now somebody finds what waits, again and again, and nobody works on it.
            harness.start_worker("ops")
            pass_time(HOUR / 2)
            harness.note(f"half an hour of rescue and nobody else: {watch.most}")
            assert watch.most["edits"] >= QUEUE_FULL, "rescue has rung until there was no room"
            assert watch.most["publish"] > 0
            accepted = harness.queued()
            assert rows_in(harness, "edits") == accepted, "a row for each edit, and none has ended"
            harness.start_worker("publish")
            harness.start_worker("edits")
        harness.drained(within=2 * RESCUE_PERIOD)
        went_out_once(harness, publisher, due, within=60)
        eventually(lambda: waiting(own_valkey.url) <= queue.WAITING_BEATS, within=30, because="no queue is left full")
        assert beat.running
        watch.holds()
    assert accepted > 20
    harness.judge(publisher.calls)


def waiting(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return sum(client.llen(name) for name in task_names.QUEUES)


@pytest.mark.faults
def test_hours_without_redis_cost_no_memory_and_what_waited_goes_once_and_in_order(
    hasty: Harness, own_valkey: Server, publisher: Publisher
) -> None:
    harness = hasty
    posts = harness.populate()
    publisher.open()
    harness.start_api()
    workers = [harness.start_worker(name) for name in ("ops", "edits", "publish")]
    beat = harness.start_beat()
    assert harness.api is not None
    ours = [harness.api, beat, *workers]
    with watched(own_valkey.url) as watch:
        with harness.load(posts, clients=12, pause=0.1) as load:
            own_valkey.stop()
            harness.note("Redis is stopped")
            accepted, due = load.accepted, overdue(harness, 200)
            # A process that has just started still loads what it needs for the first time.
            pass_time(HOUR / 3)
            before = memory(*ours)
            pass_time(HOUR * 2 / 3)
            grown = memory(*ours) - before
            harness.note(f"grown by {grown / MEBIBYTE:.1f} MiB, {load.accepted - accepted} edits accepted meanwhile")
            assert load.accepted > accepted + 20
            assert grown < 16 * MEBIBYTE
            assert publisher.calls == []
            waits = [float(seconds) for one in workers for seconds in TRIES.findall(one.output())]
            assert len(waits) > 3 * len(workers)
            assert max(waits) < RESCUE_PERIOD, "whoever waits longer from try to try comes back late"
            own_valkey.start()
            harness.note("Redis is back")
            went_out_once(harness, publisher, due, within=30)
        harness.drained(within=2 * RESCUE_PERIOD)
        watch.holds()
    assert {one.status for one in load.exchanges if one.status is None or one.status >= 500} == set()
    assert all(process.running for process in ours)
    harness.judge(publisher.calls)


@pytest.mark.faults
def test_hours_without_the_publisher_cost_ten_tries_a_post_at_most_and_then_all_go_out_once(
    hasty: Harness, own_valkey: Server, publisher: Publisher
) -> None:
    """Every connection is refused. The waits between tries are not compressed: the last of them is the longest."""
    harness = hasty
    posts = harness.populate()
    harness.start_api()
    for name in ("ops", "edits", "publish"):
        harness.start_worker(name)
    harness.start_beat()
    due = overdue(harness, 200)
    with watched(own_valkey.url) as watch:
        with harness.load([*posts, *due[:10]], pause=0.1) as load:
            pass_time(HOUR)
            tried = rows_in(harness, "publish_attempts")
            harness.note(f"an hour without the publisher: {tried} tries, {watch.most}")
            # After 2, 6, 18 and 54 s at most: each waited for his next try, whoever rang meanwhile.
            assert len(due) <= tried <= 5 * len(due)
            assert load.slowest() < 10, "edits go on"
            # So slow that their next tries, spread as they are, come faster than they end.
            publisher.takes = 2.0
            publisher.open()
            harness.note("the publisher is there")
            eventually(lambda: all_posted(harness, due[10:]), within=120, every=0.2)
        harness.drained(within=2 * RESCUE_PERIOD)
        watch.holds(tried=len(due))
    calls = {call.key for call in publisher.calls}
    assert len(calls) == len(publisher.calls)
    assert publisher.most_at_once == CALLS, "all the room there is was needed, and no more taken"
    assert rows_in(harness, "publish_attempts") <= 10 * len(due)
    with harness.engine.connect() as tx:
        tries = tx.execute(text("SELECT count(*) FROM publish_attempts GROUP BY idempotency_key")).scalars()
        assert max(tries) <= 10
    harness.judge(publisher.calls)
