"""Rows 14 and 15 of docs/faults.md: posts that move while their messages are queued; a publisher that misbehaves."""

import json
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.harness import Harness
from tests.faults.publishing import attempts, due, judged, posted, reference, refused_as_being_published
from tests.reference_services.client import Reference
from tests.waiting import eventually
from tests.worker.fake_services import at, old_edit

__all__ = ["reference"]


def test_row_14_a_move_there_and_back_while_messages_are_queued_publishes_once_at_the_newest_time(
    harness: Harness, reference: Reference
) -> None:
    (post,) = due(harness)
    harness.start_ops()
    harness.start_worker("edits")
    eventually(lambda: harness.row("posts", post).enqueued_revision == 1, within=30, because="its message is queued")
    with harness.engine.begin() as tx:
        for minutes in (600, -7):
            old_edit(tx, post, at(minutes))
    eventually(lambda: harness.row("posts", post).schedule_revision == 3, within=30, because="it moved there and back")
    assert reference.calls() == []
    harness.start_worker("publish")
    posted(harness, post)
    (call,) = judged(harness, reference)
    newest = harness.row("posts", post).scheduled_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert json.loads(call["body"])["post"]["scheduledTime"] == newest


@pytest.mark.faults
def test_row_14_moves_within_the_horizon_while_workers_hold_the_old_times(
    harness: Harness, reference: Reference
) -> None:
    first = (datetime.now(UTC) + timedelta(seconds=80)).replace(second=0, microsecond=0)
    later = first + timedelta(minutes=1)
    posts = due(harness, 20, scheduled_time=first)
    harness.start_api().start_ops()
    harness.start_worker("edits")
    harness.start_worker("publish")
    eventually(
        lambda: all(harness.row("posts", post).enqueued_revision == 1 for post in posts),
        within=80,
        because="dispatched",
    )

    def move(post: str, to: datetime, name: str) -> None:
        local = (to + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M")
        assert harness.send(post, {"scheduledTime": local, "timezone": "Asia/Tokyo"}, name).status == 200

    for number, post in enumerate(posts):
        move(post, later, f"away-{number}")
        if number % 2:
            move(post, first, f"back-{number}")
    moved = {post: first if number % 2 else later for number, post in enumerate(posts)}
    eventually(lambda: datetime.now(UTC) > later + timedelta(seconds=1), within=150, every=0.5)
    posted(harness, *posts)
    for call in judged(harness, reference):
        late = datetime.fromtimestamp(call["at"], UTC) - moved[call["post_id"]]
        assert timedelta(0) <= late < timedelta(seconds=5), (call["post_id"], late)
    assert len(reference.calls("publish")) == len(posts)


def test_row_15_a_publisher_that_hangs_keeps_the_post_closed_and_sees_one_key_and_one_body(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "hang", "effect": False, "times": 1})
    (post,) = due(harness)
    harness.start_api().start_ops()
    for name in ("edits", "publish"):
        harness.start_worker(name)
    eventually(lambda: reference.calls("publish"), within=30)
    refused_as_being_published(harness, post, "while it hangs")
    eventually(lambda: attempts(harness.engine, post)[:1] == ["unknown"], within=30)
    if harness.row("posts", post).status == "generated":
        refused_as_being_published(harness, post, "between two tries")
    posted(harness, post)
    calls = judged(harness, reference)
    assert [call["attempt"] for call in calls] == [1, 2]
    assert len({(call["key"], call["body"]) for call in calls}) == 1


def test_row_15_a_publisher_that_answers_5xx_is_tried_again_under_the_same_key(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "status", "status": 503, "effect": True, "times": 2})
    (post,) = due(harness)
    harness.start_ops()
    harness.start_worker("publish")
    posted(harness, post)
    calls = judged(harness, reference)
    assert [(call["attempt"], call["status"]) for call in calls] == [(1, 503), (2, 503), (3, 200)]
    assert attempts(harness.engine, post) == ["server_error", "server_error", "done"]
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_an_answer_that_comes_after_the_claim_expired_changes_nothing(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "2"}
    reference.behave({"mode": "late", "seconds": 6, "times": 1})
    (post,) = due(harness)
    harness.start_api().start_ops()
    harness.start_worker("edits")
    worker = harness.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=30)
    eventually(lambda: len(attempts(harness.engine, post)) == 2, within=30, because="the expired claim is retaken")
    posted(harness, post)
    before = harness.row("posts", post)
    eventually(lambda: '"stale": 1' in worker.output() or "'stale': 1" in worker.output(), within=30)
    assert harness.row("posts", post) == before
    assert attempts(harness.engine, post) == ["unknown", "done"]
    assert len({(call["key"], call["body"]) for call in judged(harness, reference)}) == 1
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_publisher_that_dies_in_the_middle_is_asked_again_when_it_is_back(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "die", "effect": True, "times": 1})
    (post,) = due(harness)
    harness.start_ops()
    harness.start_worker("publish")
    eventually(lambda: not reference.process.running, within=30)
    eventually(lambda: attempts(harness.engine, post)[:1] == ["unknown"], within=30)
    reference.start()
    posted(harness, post)
    calls = judged(harness, reference)
    assert len({(call["key"], call["body"]) for call in calls}) == 1
    assert reference.journal()["effects"] == 1
    # What was refused in between may have been sent before: never given back, though the connection was refused.
    assert set(attempts(harness.engine, post)[1:-1]) <= {"never_started"}


def test_row_15_a_worker_killed_in_the_middle_of_its_call_leaves_a_claim_that_another_retakes(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "hang", "effect": True, "times": 1})
    (post,) = due(harness)
    harness.start_api().start_ops()
    harness.start_worker("edits")
    worker = harness.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=30)
    worker.kill_tree()
    refused_as_being_published(harness, post, "its holder is dead")
    harness.start_worker("publish")
    posted(harness, post)
    assert attempts(harness.engine, post) == ["unknown", "done"]
    assert len({(call["key"], call["body"]) for call in judged(harness, reference)}) == 1
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_worker_that_freezes_in_its_call_changes_nothing_when_it_thaws(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "seconds": 1, "times": 1})
    (post,) = due(harness)
    harness.start_ops()
    frozen = harness.start_worker("publish")
    eventually(lambda: reference.calls("publish"), within=30)
    frozen.freeze()
    other = harness.processes.start("worker", "publish", "--hostname=publish@other", **harness.environment)
    other.says("ready.", within=30)
    posted(harness, post)
    before = harness.row("posts", post)
    frozen.thaw()
    eventually(lambda: "stale" in frozen.output(), within=30)
    assert harness.row("posts", post) == before
    judged(harness, reference)
    assert reference.journal()["effects"] == 1


@pytest.mark.faults
def test_row_15_a_worker_told_to_stop_finishes_its_calls_first(harness: Harness, reference: Reference) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "seconds": 2})
    posts = due(harness, 8)
    harness.start_ops()
    worker = harness.start_worker("publish")
    eventually(lambda: len(reference.calls("publish")) == 8, within=30)
    assert worker.stop(within=40) == 0
    assert {harness.row("posts", post).status for post in posts} == {"posted"}
    assert len(judged(harness, reference)) == 8


@pytest.mark.faults
def test_row_15_while_every_publish_hangs_edits_of_other_posts_are_answered_at_once(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "60"}
    reference.behave({"mode": "hang", "effect": False})
    posts = harness.populate(10)
    harness.start_api()
    harness.start_worker("edits")

    def took() -> float:
        times = []
        for number in range(30):
            started = time.monotonic()
            answer = harness.send(posts[number % 10], {"caption": f"c{started}"}, f"edit-{started}", Prefer="wait=20")
            assert answer.status == 200, answer
            times.append(time.monotonic() - started)
        return statistics.median(times)

    took()
    idle = took()
    due(harness, 300)
    harness.start_ops()
    harness.start_worker("publish")
    eventually(lambda: len(reference.calls("publish")) == 300, within=30, because="all of them hang side by side")
    hanging = took()
    # Not a measure of speed: an edit behind one of these calls would wait for 20 s.
    assert hanging < max(10 * idle, 1), (idle, hanging)
    assert harness.scalar("SELECT count(*) FROM posts WHERE claim_kind = 'publish'") == 300
