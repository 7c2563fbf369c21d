"""Row 19 of docs/faults.md: a worker whose clock is five minutes off, on either side."""

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from shared.local import commands
from tests import factories
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.publishing import due, judged, posted, reference
from tests.processes import Process
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]

FIVE_MINUTES = 300


def start_shifted(harness: Harness, queue: str, seconds: int) -> Process:
    """A worker that believes it is `seconds` later."""
    line = commands.worker(queue, name=f"off{seconds}")
    at = line.index("celery")
    planted = [*line[:at], "tests.faults.shifted", str(seconds), *line[at + 1 :]]
    worker = harness.processes.start(planted, **harness.environment)
    worker.says("ready.", within=30)
    return worker


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [FIVE_MINUTES, -FIVE_MINUTES])
def test_row_19_workers_whose_clock_is_off_decide_by_the_database_s(harness: Harness, seconds: int) -> None:
    posts = harness.populate()
    harness.start_api()
    workers = [start_shifted(harness, queue, seconds) for queue in ("edits", "publish", "ops")]
    harness.start_beat()
    told = re.search(r"20\d\d-\d\d-\d\d.\d\d:\d\d:\d\d", workers[0].output())
    assert told is not None
    believed = datetime.fromisoformat(told[0]).replace(tzinfo=UTC)
    assert abs((believed - datetime.now(UTC)).total_seconds() - seconds) < 60, "its clock must be off"
    with harness.load(posts[:5], clients=3):
        soon = (datetime.now(UTC) + timedelta(seconds=15)).replace(microsecond=0)
        with harness.engine.begin() as tx:
            waiting = [factories.post(tx, scheduled_time=soon) for _ in range(3)]
        harness.remember(waiting)
        # A bell that nobody rings, for an edit recorded behind the API's back: only rescue finds it.
        with harness.engine.begin() as tx:
            forgotten = factories.edit(tx, posts[5], {"caption": "forgotten"})
        eventually(lambda: harness.row("edits", forgotten).status == "applied", within=3 * RESCUE_PERIOD)
        # A held post's bell comes back by a countdown, which is a time of day to Celery.
        with harness.engine.begin() as person:
            person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": posts[6]})
            held = harness.send(posts[6], {"caption": "held"}, "held", Prefer="wait=1")
            assert held.status == 202
        end = harness.http.get(f"/v1/edits/{held.edit_id}", headers={"Prefer": "wait=15"}).json()
        assert end["status"] == "applied", end
        assert time.time() > soon.timestamp() or harness.row("posts", waiting[0]).status == "generated", (
            "published early"
        )
        for post in waiting:
            went = eventually(lambda post=post: harness.row("posts", post).posted_at, within=40)
            assert timedelta(0) <= went - soon < timedelta(seconds=15), went
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


@pytest.mark.faults
def test_row_19_workers_whose_clocks_differ_publish_on_time_by_the_database_s_and_sign_so(
    harness: Harness, reference: Reference
) -> None:
    harness.start_ops()
    for seconds in (FIVE_MINUTES, -FIVE_MINUTES):
        start_shifted(harness, "publish", seconds)
    goes = datetime.now(UTC) + timedelta(seconds=20)
    posts = due(harness, 40, scheduled_time=goes)
    posts += due(harness, 5)
    posted(harness, *posts, within=60)
    for call in judged(harness, reference):
        late = call["at"] - harness.row("posts", call["post_id"]).scheduled_time.timestamp()
        assert late >= 0
        assert call["post_id"] in posts[40:] or late < 8
    assert len(reference.calls("publish")) == len(posts)
