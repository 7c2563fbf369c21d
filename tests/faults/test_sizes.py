"""The largest legal inputs, over a link of 128 kB and 20 ms each way between our processes and PostgreSQL.

What is large meets buffers that fill: whoever writes without reading waits for a server that does the same.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from shared.store import edits as edits_store
from shared.store.edits import NewEdit
from tests import factories, sizes
from tests.faults.behind import through
from tests.faults.proxy import SLOW, Proxy
from tests.faults.scene import Scene
from tests.faults.test_bulk import PATH, ended
from tests.processes import Process
from tests.waiting import eventually

# What one worker for edits may grow to, each of its processes, under the largest inputs there are.
MEMORY = 600_000_000


@contextmanager
def far(scene: Scene, *queues: str, api: bool = True) -> Iterator[Proxy]:
    """An API and workers that are far from their PostgreSQL; ops are near."""
    with Proxy(scene.environment["REDRAFT_DATABASE_URL"], slow=SLOW) as proxy:
        with through(scene, proxy, "postgresql"):
            if api:
                scene.start_api()
            for queue in queues:
                scene.start_worker(queue)
        scene.start_ops()
        yield proxy


def queued(scene: Scene, posts: Sequence[str], bodies: Sequence[dict[str, Any]]) -> None:
    """Edits that wait, as the API records them: the first for the first post, and round and round."""
    new = [
        NewEdit(
            f"edit_{next(factories.numbers):07}",
            posts[number % len(posts)],
            factories.WORKSPACE,
            body,
            None,
            factories.KEY_ID,
            "tests",
            f"req_{number}",
        )
        for number, body in enumerate(bodies)
    ]
    for start in range(0, len(new), 50):
        with scene.engine.begin() as tx:
            edits_store.insert_edits(tx, new[start : start + 50], datetime.now(UTC))


def largest(process: Process) -> int:
    """Bytes of the largest process of a worker, what it shares with others included."""
    top = psutil.Process(process.pid)
    return max(one.memory_info().rss for one in (top, *top.children(recursive=True)))


def test_sixty_edits_of_35_long_urls_are_applied_over_a_slow_link(scene: Scene) -> None:
    """In one batch they were more than buffers hold, and were never applied."""
    posts = scene.populate(63)
    queued(scene, posts, [sizes.slides(number) for number in range(63)])
    with far(scene, "edits", api=False) as proxy:
        scene.drained(within=60)
        assert proxy.passed["up"] > 63 * sizes.SLIDES * sizes.URL
    assert scene.judge() == 63
    assert scene.scalar("SELECT count(*) FROM edits WHERE status = 'applied' AND attempts = 1") == 63


def test_five_hundred_captions_at_the_limit_are_applied_over_a_slow_link(scene: Scene) -> None:
    rng = random.Random(scene.seed)
    posts = scene.populate(500)
    queued(scene, posts, [{"caption": sizes.caption(rng, f"c{number}")} for number in range(500)])
    with far(scene, "edits", api=False):
        scene.drained(within=60)
    assert scene.judge() == 500


def test_a_load_of_the_largest_and_the_smallest_is_answered_over_a_slow_link(scene: Scene) -> None:
    posts = scene.populate(12)
    with far(scene, "edits"):
        with scene.load(posts, clients=4, most=12, large=0.4, pause=0.1) as load:
            eventually(lambda: load.accepted >= 30, within=60, because="the load is answered")
        scene.drained(within=60)
    scene.judge()
    assert not [one for one in load.exchanges if one.status is None or one.status >= 500]


@pytest.mark.faults
def test_a_thousand_of_the_largest_edits_of_one_post_are_applied_in_order_over_a_slow_link(scene: Scene) -> None:
    rng = random.Random(scene.seed)
    (post,) = scene.populate(1)
    neighbours = scene.populate(20)
    queued(scene, [post], [sizes.patch(rng, f"n{number}") for number in range(sizes.QUEUED)])
    queued(scene, neighbours, [{"caption": "small"}] * 20)
    with far(scene, "edits", api=False):
        # The small ones of other posts do not wait for all of the large ones.
        near = "SELECT count(*) FROM edits WHERE status = 'queued' AND post_id = ANY(:ids)"
        eventually(lambda: scene.scalar(near, ids=neighbours) == 0, within=60, every=0.2)
        scene.drained(within=400)
        assert largest(scene.workers["edits"]) < MEMORY
    assert scene.judge() == sizes.QUEUED + 20


@pytest.mark.faults
def test_a_job_of_ten_thousand_items_runs_to_its_end_over_a_slow_link(scene: Scene) -> None:
    posts = scene.populate(sizes.ITEMS, timezone="Asia/Tokyo")
    at = {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"}
    with far(scene, "bulk"):
        answer = scene.http.post(PATH, json={"items": [at | {"postId": post} for post in posts]})
        assert answer.status_code == 202, answer.text
        job = ended(scene, answer.json()["id"], within=300)
    assert (job["status"], job["applied"]) == ("done", sizes.ITEMS)
    scene.judge()


@pytest.mark.faults
def test_ten_minutes_of_the_largest_inputs_over_a_slow_link_end_with_an_empty_queue(scene: Scene) -> None:
    posts = scene.populate(40)
    with far(scene, "edits", "bulk"):
        grown, until = 0, time.monotonic() + 600
        with scene.load(posts, clients=8, large=0.3, pause=0.7) as load:
            while time.monotonic() < until:
                answered = load.accepted
                eventually(lambda: load.accepted > answered, within=60, every=0.5, because="the load goes on")  # noqa: B023
                grown = max(grown, largest(scene.workers["edits"]))
        scene.note(f"{load.accepted} accepted; the largest process had {grown / 1e6:.0f} MB")
        scene.drained(within=60)
        assert grown < MEMORY
    scene.judge()
