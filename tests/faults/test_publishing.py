"""Faults 14 and 15 of docs/faults.md: posts that move while messages are queued; a publisher that misbehaves."""

import json
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.publishing import attempts, due, judged, posted, reference, refused_as_being_published
from tests.faults.scene import Scene
from tests.reference_services.client import Reference
from tests.waiting import eventually
from tests.worker.fake_services import at, old_edit

__all__ = ["reference"]


def test_row_14_a_move_there_and_back_while_messages_are_queued_publishes_once_at_the_newest_time(
    scene: Scene, reference: Reference
) -> None:
    (post,) = due(scene)
    scene.start_ops()
    scene.start_worker("edits")
    eventually(lambda: scene.row("posts", post).enqueued_revision == 1, within=10, because="its message is queued")
    with scene.engine.begin() as tx:
        for minutes in (600, -7):
            old_edit(tx, post, at(minutes))
    eventually(lambda: scene.row("posts", post).schedule_revision == 3, within=10, because="it moved there and back")
    assert reference.calls() == []
    scene.start_worker("publish")
    posted(scene, post)
    (call,) = judged(scene, reference)
    newest = scene.row("posts", post).scheduled_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert json.loads(call["body"])["post"]["scheduledTime"] == newest


@pytest.mark.faults
def test_row_14_moves_within_the_horizon_while_workers_hold_the_old_times(scene: Scene, reference: Reference) -> None:
    first = (datetime.now(UTC) + timedelta(seconds=80)).replace(second=0, microsecond=0)
    later = first + timedelta(minutes=1)
    posts = due(scene, 20, scheduled_time=first)
    scene.start_api().start_ops()
    scene.start_worker("edits")
    scene.start_worker("publish")
    eventually(
        lambda: all(scene.row("posts", post).enqueued_revision == 1 for post in posts), within=80, because="dispatched"
    )

    def move(post: str, to: datetime, name: str) -> None:
        local = (to + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M")
        assert scene.send(post, {"scheduledTime": local, "timezone": "Asia/Tokyo"}, name).status == 200

    for number, post in enumerate(posts):
        move(post, later, f"away-{number}")
        if number % 2:
            move(post, first, f"back-{number}")
    moved = {post: first if number % 2 else later for number, post in enumerate(posts)}
    eventually(lambda: datetime.now(UTC) > later + timedelta(seconds=1), within=150, every=0.5)
    posted(scene, *posts)
    for call in judged(scene, reference):
        late = datetime.fromtimestamp(call["at"], UTC) - moved[call["post_id"]]
        assert timedelta(0) <= late < timedelta(seconds=5), (call["post_id"], late)
    assert len(reference.calls("publish")) == len(posts)


def test_row_15_a_publisher_that_hangs_keeps_the_post_closed_and_sees_one_key_and_one_body(
    scene: Scene, reference: Reference
) -> None:
    reference.behave({"mode": "hang", "effect": False, "times": 1})
    (post,) = due(scene)
    scene.start_api().start_ops()
    for name in ("edits", "publish"):
        scene.start_worker(name)
    eventually(lambda: reference.calls("publish"), within=10)
    refused_as_being_published(scene, post, "while it hangs")
    eventually(lambda: attempts(scene.engine, post)[:1] == ["unknown"], within=10)
    if scene.row("posts", post).status == "generated":
        refused_as_being_published(scene, post, "between two tries")
    posted(scene, post)
    calls = judged(scene, reference)
    assert [call["attempt"] for call in calls] == [1, 2]
    assert len({(call["key"], call["body"]) for call in calls}) == 1


def test_row_15_a_publisher_that_answers_5xx_is_tried_again_under_the_same_key(
    scene: Scene, reference: Reference
) -> None:
    reference.behave({"mode": "status", "status": 503, "effect": True, "times": 2})
    (post,) = due(scene)
    scene.start_ops()
    scene.start_worker("publish")
    posted(scene, post)
    calls = judged(scene, reference)
    assert [(call["attempt"], call["status"]) for call in calls] == [(1, 503), (2, 503), (3, 200)]
    assert attempts(scene.engine, post) == ["server_error", "server_error", "done"]
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_an_answer_that_comes_after_the_claim_expired_changes_nothing(
    scene: Scene, reference: Reference
) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "2"}
    reference.behave({"mode": "late", "seconds": 6, "times": 1})
    (post,) = due(scene)
    scene.start_api().start_ops()
    scene.start_worker("edits")
    worker = scene.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=10)
    eventually(lambda: len(attempts(scene.engine, post)) == 2, within=10, because="the expired claim is retaken")
    posted(scene, post)
    before = scene.row("posts", post)
    eventually(lambda: '"stale": 1' in worker.output() or "'stale': 1" in worker.output(), within=15)
    assert scene.row("posts", post) == before
    assert attempts(scene.engine, post) == ["unknown", "done"]
    assert len({(call["key"], call["body"]) for call in judged(scene, reference)}) == 1
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_publisher_that_dies_in_the_middle_is_asked_again_when_it_is_back(
    scene: Scene, reference: Reference
) -> None:
    reference.behave({"mode": "die", "effect": True, "times": 1})
    (post,) = due(scene)
    scene.start_ops()
    scene.start_worker("publish")
    eventually(lambda: not reference.process.running, within=10)
    eventually(lambda: attempts(scene.engine, post)[:1] == ["unknown"], within=10)
    reference.start()
    posted(scene, post)
    calls = judged(scene, reference)
    assert len({(call["key"], call["body"]) for call in calls}) == 1
    assert reference.journal()["effects"] == 1
    # What was refused in between may have been sent before: never given back, though the connection was refused.
    assert set(attempts(scene.engine, post)[1:-1]) <= {"never_started"}


def test_row_15_a_worker_killed_in_the_middle_of_its_call_leaves_a_claim_that_another_retakes(
    scene: Scene, reference: Reference
) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "hang", "effect": True, "times": 1})
    (post,) = due(scene)
    scene.start_api().start_ops()
    scene.start_worker("edits")
    worker = scene.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=10)
    worker.kill_tree()
    refused_as_being_published(scene, post, "its holder is dead")
    scene.start_worker("publish")
    posted(scene, post)
    assert attempts(scene.engine, post) == ["unknown", "done"]
    assert len({(call["key"], call["body"]) for call in judged(scene, reference)}) == 1
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_worker_that_freezes_in_its_call_changes_nothing_when_it_thaws(
    scene: Scene, reference: Reference
) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "seconds": 1, "times": 1})
    (post,) = due(scene)
    scene.start_ops()
    frozen = scene.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=10)
    frozen.freeze()
    other = scene.processes.start("worker", "publish", "--hostname=publish@other", **scene.environment)
    other.says("ready.", within=30)
    posted(scene, post)
    before = scene.row("posts", post)
    frozen.thaw()
    eventually(lambda: "stale" in frozen.output(), within=15)
    assert scene.row("posts", post) == before
    judged(scene, reference)
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_worker_told_to_stop_finishes_its_calls_first(scene: Scene, reference: Reference) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "seconds": 2})
    posts = due(scene, 8)
    scene.start_ops()
    worker = scene.start_worker("publish")
    eventually(lambda: len(reference.calls("publish")) == 8, within=10)
    assert worker.stop(within=40) == 0
    assert {scene.row("posts", post).status for post in posts} == {"posted"}
    assert len(judged(scene, reference)) == 8


@pytest.mark.faults
def test_row_15_while_every_publish_hangs_edits_of_other_posts_are_answered_at_once(
    scene: Scene, reference: Reference
) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "60"}
    reference.behave({"mode": "hang", "effect": False})
    posts = scene.populate(10)
    scene.start_api()
    scene.start_worker("edits")

    def took() -> float:
        times = []
        for number in range(30):
            started = time.monotonic()
            answer = scene.send(posts[number % 10], {"caption": f"c{started}"}, f"edit-{started}", Prefer="wait=20")
            assert answer.status == 200, answer
            times.append(time.monotonic() - started)
        return statistics.median(times)

    took()
    idle = took()
    due(scene, 300)
    scene.start_ops()
    scene.start_worker("publish")
    eventually(lambda: len(reference.calls("publish")) == 300, within=30, because="all of them hang side by side")
    hanging = took()
    # Not a measure of speed: an edit behind one of these calls would wait for 20 s.
    assert hanging < max(10 * idle, 1), (idle, hanging)
    assert scene.scalar("SELECT count(*) FROM posts WHERE claim_kind = 'publish'") == 300
