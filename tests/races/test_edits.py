"""Edits race each other and a person, over two real connections, and the loser is seen to wait."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import db
from shared.store import posts as posts_store
from tests import factories, sizes
from tests.faults.actors import Actor, stopping_points, waits_for_a_lock
from tests.faults.conftest import seed
from tests.faults.evidence import gather, snapshot
from tests.faults.oracle import judge
from tests.processes import Processes
from tests.waiting import eventually
from worker import apply
from worker.apply import Applied, apply_edits

__all__ = ["seed"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine, stopping_points():
        yield engine


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers wait for a held post long enough to be watched."""
    monkeypatch.setattr(apply, "WAIT_FOR_LOCKS", 10.0)


def make(engine: Engine, *captions: str) -> tuple[str, list[str]]:
    with engine.begin() as tx:
        post = factories.post(tx)
        return post, [factories.edit(tx, post, {"caption": caption}) for caption in captions]


def honest(engine: Engine, *posts: str) -> None:
    """The oracle finds nothing: each of the posts began as `factories.post` makes it."""
    first = {}
    for post_id, post in snapshot(engine, posts).items():
        first[post_id] = type(post)(post_id, post.fields | {"caption": "first"}, 1, post.render_as_video, None)
    assert judge(gather(engine, first)) == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("point", ["read", "decided"])
def test_of_two_workers_on_one_post_the_second_waits_and_finds_nothing_left_to_do(engine: Engine, point: str) -> None:
    post, edits = make(engine, "one", "two")
    winner = Actor(lambda: apply_edits([post]), stop_at=point)
    assert winner.start() == point
    loser = Actor(lambda: apply_edits([post]))
    with ThreadPoolExecutor(1) as beside:
        lost = beside.submit(loser.start)
        assert "FOR NO KEY UPDATE" in waits_for_a_lock(engine)
        assert not lost.done()
        winner.go_on()
        lost.result(timeout=10)
    assert [end.id for end in winner.result().results] == edits
    assert loser.result().results == []
    assert factories.row(engine, "posts", post).revision == 3
    honest(engine, post)


@pytest.mark.usefixtures("patient")
def test_an_edit_accepted_while_the_second_worker_waits_is_read_after_the_wait_and_applied_on_top(
    engine: Engine,
) -> None:
    """The lock is one statement and the queue is read in the next: the first saw the world from before the wait."""
    post, (first,) = make(engine, "one")
    winner = Actor(lambda: apply_edits([post]), stop_at="decided")
    assert winner.start() == "decided"
    loser = Actor(lambda: apply_edits([post]))
    with ThreadPoolExecutor(1) as beside:
        lost = beside.submit(loser.start)
        waits_for_a_lock(engine)
        with engine.begin() as tx:
            late = factories.edit(tx, post, {"caption": "two"})
        winner.go_on()
        lost.result(timeout=10)
    assert [end.id for end in winner.result().results] == [first]
    (end,) = loser.result().results
    assert (end.id, end.revision, end.before, end.after) == (late, 3, {"caption": "one"}, {"caption": "two"})
    assert end.lock_wait_ms is not None
    assert end.lock_wait_ms > 0
    honest(engine, post)


@pytest.mark.usefixtures("patient")
def test_a_person_who_holds_a_post_makes_its_edit_wait_and_no_other(engine: Engine) -> None:
    held, (waiting,) = make(engine, "later")
    free, (now,) = make(engine, "now")
    worker = Actor(lambda: apply_edits([held, free]))
    with ThreadPoolExecutor(1) as beside, engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        ended = beside.submit(worker.start)
        assert "FOR NO KEY UPDATE" in waits_for_a_lock(engine)
        # The neighbour is through and committed while the worker waits; the held one has cost nothing.
        assert factories.row(engine, "edits", now).status == "applied"
        assert (factories.row(engine, "edits", waiting).status, factories.row(engine, "edits", waiting).attempts) == (
            "queued",
            0,
        )
        assert not ended.done()
        person.execute(
            text("UPDATE posts SET caption = 'by hand', revision = revision + 1 WHERE id = :id"), {"id": held}
        )
        person.commit()
        ended.result(timeout=10)
    ends = {end.id: end for end in worker.result().results}
    assert ends[waiting].before == {"caption": "by hand"}, "decided on what the row is, not on what it was"
    assert (ends[waiting].revision, factories.row(engine, "edits", waiting).attempts) == (3, 1)


def test_a_post_held_longer_than_a_worker_waits_is_rung_again_and_never_dropped(engine: Engine) -> None:
    held, (waiting,) = make(engine, "later")
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        started = time.monotonic()
        applied = apply_edits([held])
        assert time.monotonic() - started < 2
        assert (applied.follow_ups.contended, applied.results) == ([held], [])
        assert factories.row(engine, "edits", waiting).attempts == 0
    assert [end.id for end in apply_edits(applied.follow_ups.contended).results] == [waiting]


def test_forty_contended_posts_cost_a_task_no_longer_than_one(engine: Engine) -> None:
    posts = [make(engine, "later")[0] for _ in range(40)]
    free, (now,) = make(engine, "now")
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": posts})
        started = time.monotonic()
        applied = apply_edits([*posts, free])
        # 50 ms of waiting in all, not for each, which were two seconds; the rest is the machine's.
        assert time.monotonic() - started < 1.5
        assert (sorted(applied.follow_ups.contended), [end.id for end in applied.results]) == (sorted(posts), [now])


def test_recording_edits_waits_for_nobody_who_holds_their_post(engine: Engine) -> None:
    held, _ = make(engine)
    free, _ = make(engine)
    with engine.begin() as person, engine.begin() as api:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        api.execute(text("SET LOCAL lock_timeout = 100"))
        for post in (held, free):
            factories.edit(api, post, {"caption": "recorded"})


def test_many_workers_on_one_post_apply_each_edit_once_and_in_order(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, _ = make(engine)
    db.engine()
    db._autocommit_relaxed()
    met: list[str] = []
    wait_at_most = posts_store.wait_at_most

    def noted(*given: Any) -> None:
        met.append(post)
        wait_at_most(*given)

    monkeypatch.setattr(posts_store, "wait_at_most", noted)
    count, over = 120, threading.Event()
    barrier = threading.Barrier(6)

    def work(_: int) -> list[Applied]:
        barrier.wait()
        done = []
        while not over.is_set():
            done.append(apply_edits([post]))
        return [*done, apply_edits([post])]

    with ThreadPoolExecutor(5) as workers:
        running = workers.map(work, range(5))
        barrier.wait()
        for number in range(count):
            with engine.begin() as tx:
                factories.edit(tx, post, {"caption": str(number)})
        eventually(lambda: _queued(engine) == 0, within=30)
        over.set()
        works = list(running)
    ended = [end for work in works for applied in work for end in applied.results]
    assert len(ended) == len({end.id for end in ended}) == count
    assert sorted(end.revision or 0 for end in ended) == list(range(2, count + 2))
    assert met, "nobody ever found the post held"
    assert sum(any(applied.results for applied in work) for work in works) >= 2
    assert factories.row(engine, "posts", post).caption == str(count - 1)
    honest(engine, post)


def test_many_workers_on_one_post_apply_a_thousand_edits_of_every_size_once_and_in_order(
    engine: Engine, seed: int
) -> None:
    rng = random.Random(seed)
    post, _ = make(engine)
    first = snapshot(engine, [post])
    with engine.begin() as tx:
        bodies = [sizes.any_size(rng, {"caption": str(number)}, f"n{number}", 0.05) for number in range(sizes.QUEUED)]
        edits = [factories.edit(tx, post, body) for body in bodies]
    barrier = threading.Barrier(4)

    def work(_: int) -> list[Applied]:
        barrier.wait()
        done = []
        while _queued(engine):
            done.append(apply_edits([post]))
        return done

    with ThreadPoolExecutor(4) as workers:
        ended = [end for done in workers.map(work, range(4)) for applied in done for end in applied.results]
    by_revision = sorted(ended, key=lambda end: end.revision or 0)
    assert [end.id for end in by_revision] == edits
    assert factories.row(engine, "posts", post).revision == sizes.QUEUED + 1
    assert judge(gather(engine, first)) == []


WORK = """
import sys
from shared.store.db import transaction
from worker.apply import apply_edits
print("ready", flush=True)
post, until = sys.argv[1], int(sys.argv[2])
while True:
    for end in apply_edits([post]).results:
        print("ended", end.id, end.revision, flush=True)
        if end.result and f'"caption":"{until}"' in end.result:
            print("last", flush=True)
"""


def test_many_processes_on_one_post_apply_each_edit_once_and_in_order(
    engine: Engine, database_url: str, processes: Processes
) -> None:
    post, _ = make(engine)
    count = 100
    workers = [
        processes.start([sys.executable, "-c", WORK, post, str(count - 1)], REDRAFT_DATABASE_URL=database_url)
        for _ in range(3)
    ]
    for worker in workers:
        worker.says("ready", within=30)
    for number in range(count):
        with engine.begin() as tx:
            factories.edit(tx, post, {"caption": str(number)})
    eventually(lambda: _queued(engine) == 0, within=30)
    eventually(lambda: any("last" in worker.output() for worker in workers), within=30)
    said = [line.split() for worker in workers for line in worker.output().splitlines() if line.startswith("ended")]
    assert len(said) == len({edit for _, edit, _ in said}) == count
    assert sorted(int(revision) for *_, revision in said) == list(range(2, count + 2))
    honest(engine, post)


def _queued(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM edits WHERE status = 'queued'")).scalar_one())
