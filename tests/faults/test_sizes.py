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
from tests.faults.harness import Harness
from tests.faults.proxy import SLOW, Proxy
from tests.faults.test_bulk import PATH, ended
from tests.processes import Process
from tests.waiting import eventually

# What one worker for edits may grow to, each of its processes, under the largest inputs there are.
MEMORY = 600_000_000


@contextmanager
def far(harness: Harness, *queues: str, api: bool = True) -> Iterator[Proxy]:
    """An API and workers that are far from their PostgreSQL; ops are near."""
    with Proxy(harness.environment["REDRAFT_DATABASE_URL"], slow=SLOW) as proxy:
        with through(harness, proxy, "postgresql"):
            if api:
                harness.start_api()
            for queue in queues:
                harness.start_worker(queue)
        harness.start_ops()
        yield proxy


def queued(harness: Harness, posts: Sequence[str], bodies: Sequence[dict[str, Any]]) -> None:
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
        with harness.engine.begin() as tx:
            edits_store.insert_edits(tx, new[start : start + 50], datetime.now(UTC))


def largest(process: Process) -> int:
    """Bytes of the largest process of a worker, what it shares with others included."""
    top = psutil.Process(process.pid)
    return max(one.memory_info().rss for one in (top, *top.children(recursive=True)))


def test_sixty_edits_of_35_long_urls_are_applied_over_a_slow_link(harness: Harness) -> None:
    """In one batch they were more than buffers hold, and were never applied."""
    posts = harness.populate(63)
    queued(harness, posts, [sizes.slides(number) for number in range(63)])
    with far(harness, "edits", api=False) as proxy:
        harness.drained(within=60)
        assert proxy.passed["up"] > 63 * sizes.SLIDES * sizes.URL
    assert harness.judge() == 63
    assert harness.scalar("SELECT count(*) FROM edits WHERE status = 'applied' AND attempts = 1") == 63


def test_five_hundred_captions_at_the_limit_are_applied_over_a_slow_link(harness: Harness) -> None:
    rng = random.Random(harness.seed)
    posts = harness.populate(500)
    queued(harness, posts, [{"caption": sizes.caption(rng, f"c{number}")} for number in range(500)])
    with far(harness, "edits", api=False):
        harness.drained(within=60)
    assert harness.judge() == 500


def test_a_load_of_the_largest_and_the_smallest_is_answered_over_a_slow_link(harness: Harness) -> None:
    posts = harness.populate(12)
    with far(harness, "edits"):
        with harness.load(posts, clients=4, most=12, large=0.4, pause=0.1) as load:
            eventually(lambda: load.accepted >= 30, within=60, because="the load is answered")
        harness.drained(within=60)
    harness.judge()
    assert not [one for one in load.exchanges if one.status is None or one.status >= 500]


@pytest.mark.faults
def test_a_thousand_of_the_largest_edits_of_one_post_are_applied_in_order_over_a_slow_link(harness: Harness) -> None:
    rng = random.Random(harness.seed)
    (post,) = harness.populate(1)
    neighbours = harness.populate(20)
    queued(harness, [post], [sizes.patch(rng, f"n{number}") for number in range(sizes.QUEUED)])
    queued(harness, neighbours, [{"caption": "small"}] * 20)
    with far(harness, "edits", api=False):
        # The small ones of other posts do not wait for all of the large ones.
        near = "SELECT count(*) FROM edits WHERE status = 'queued' AND post_id = ANY(:ids)"
        eventually(lambda: harness.scalar(near, ids=neighbours) == 0, within=400, every=0.2)
        assert harness.scalar(near, ids=[post]) > sizes.QUEUED / 2
        harness.drained(within=400)
        assert largest(harness.workers["edits"]) < MEMORY
    assert harness.judge() == sizes.QUEUED + 20


@pytest.mark.faults
def test_a_job_of_ten_thousand_items_runs_to_its_end_over_a_slow_link(harness: Harness) -> None:
    posts = harness.populate(sizes.ITEMS, timezone="Asia/Tokyo")
    at = {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"}
    with far(harness, "bulk"):
        answer = harness.http.post(PATH, json={"items": [at | {"postId": post} for post in posts]})
        assert answer.status_code == 202, answer.text
        job = ended(harness, answer.json()["id"], within=300)
    assert (job["status"], job["applied"]) == ("done", sizes.ITEMS)
    harness.judge()


@pytest.mark.faults
def test_ten_minutes_of_the_largest_inputs_over_a_slow_link_end_with_an_empty_queue(harness: Harness) -> None:
    posts = harness.populate(40)
    with far(harness, "edits", "bulk"):
        grown, until = 0, time.monotonic() + 600
        with harness.load(posts, clients=8, large=0.3, pause=0.7) as load:
            while time.monotonic() < until:
                answered = load.accepted
                eventually(lambda: load.accepted > answered, within=60, every=0.5, because="the load goes on")  # noqa: B023
                grown = max(grown, largest(harness.workers["edits"]))
        harness.note(f"{load.accepted} accepted; the largest process had {grown / 1e6:.0f} MB")
        harness.drained(within=60)
        assert grown < MEMORY
    harness.judge()
