"""Row 19 of FAULTS.md: a worker whose clock is five minutes off, on either side."""

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from shared.local import commands
from tests import rows
from tests.faults.scene import RESCUE_PERIOD, Scene
from tests.processes import Process, eventually

FIVE_MINUTES = 300


def start_shifted(scene: Scene, queue: str, seconds: int) -> Process:
    """A worker that believes it is `seconds` later."""
    line = commands.worker(queue, name=f"off{seconds}")
    at = line.index("celery")
    planted = [*line[:at], "tests.faults.shifted", str(seconds), *line[at + 1 :]]
    worker = scene.processes.start(planted, **scene.environment)
    worker.says("ready.", within=30)
    return worker


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [FIVE_MINUTES, -FIVE_MINUTES])
def test_row_19_workers_whose_clock_is_off_decide_by_the_database_s(scene: Scene, seconds: int) -> None:
    posts = scene.populate()
    scene.start_api()
    workers = [start_shifted(scene, queue, seconds) for queue in ("edits", "publish", "ops")]
    scene.start_beat()
    told = re.search(r"20\d\d-\d\d-\d\d.\d\d:\d\d:\d\d", workers[0].output())
    assert told is not None
    believed = datetime.fromisoformat(told[0]).replace(tzinfo=UTC)
    assert abs((believed - datetime.now(UTC)).total_seconds() - seconds) < 60, "its clock must be off"
    with scene.load(posts[:5], clients=3):
        soon = (datetime.now(UTC) + timedelta(seconds=15)).replace(microsecond=0)
        with scene.engine.begin() as tx:
            due = [rows.post(tx, scheduled_time=soon) for _ in range(3)]
        scene.remember(due)
        # A bell that nobody rings, for an edit recorded behind the API's back: only rescue finds it.
        with scene.engine.begin() as tx:
            forgotten = rows.edit(tx, posts[5], {"caption": "forgotten"})
        eventually(lambda: scene.row("edits", forgotten).status == "applied", within=3 * RESCUE_PERIOD)
        # A held post's bell comes back by a countdown, which is a time of day to Celery.
        with scene.engine.begin() as person:
            person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": posts[6]})
            held = scene.send(posts[6], {"caption": "held"}, "held", Prefer="wait=1")
            assert held.status == 202
        end = scene.http.get(f"/v1/edits/{held.edit_id}", headers={"Prefer": "wait=15"}).json()
        assert end["status"] == "applied", end
        assert time.time() > soon.timestamp() or scene.row("posts", due[0]).status == "generated", "published early"
        for post in due:
            posted = eventually(lambda post=post: scene.row("posts", post).posted_at, within=40)
            assert timedelta(0) <= posted - soon < timedelta(seconds=15), posted
    scene.drained(within=2 * RESCUE_PERIOD)
    scene.judge()
