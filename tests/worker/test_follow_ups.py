"""Follow-ups as a value, and what `send` makes of it; no other module of the worker rings."""

import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.broker import contended_posts, doorbells, queue
from shared.broker.doorbells import Bell
from shared.domain.lifecycle import PostFacts, Status
from shared.store.posts import Write
from worker.follow_ups import SNOOZE, FollowUps, JobStep, Publish, Render

NOW = datetime(2031, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def facts(scheduled_time: datetime) -> PostFacts:
    given = (None, "video", "https://cdn.example.com/a.mp4", None, "", None, None, scheduled_time, False, None, 5, 3, 2)
    return PostFacts("p", "tiktok", Status.GENERATED, *given)


@pytest.mark.parametrize(
    ("enqueue", "goes", "now", "expected"),
    [
        (None, NOW, NOW, FollowUps()),
        ("render", LATER, NOW, FollowUps(renders=[Render("p", 2)])),
        ("publish", LATER, NOW, FollowUps(publishes=[Publish("p", 3, LATER)])),
        ("publish", NOW, NOW, FollowUps(publishes=[Publish("p", 3, None)])),
        ("publish", NOW - timedelta(days=1), NOW, FollowUps(publishes=[Publish("p", 3, None)])),
        ("publish", NOW, None, FollowUps(publishes=[Publish("p", 3, NOW)])),
    ],
)
def test_a_written_post_needs_its_render_or_its_publish(
    enqueue: Any, goes: datetime, now: datetime | None, expected: FollowUps
) -> None:
    found = FollowUps()
    found.add_write(Write(facts(goes), facts(goes), enqueue), now)
    assert found == expected


def one_of_each(name: str) -> FollowUps:
    return FollowUps(
        [Publish(name, 1)], [Render(name, 2)], [f"{name}_e"], [f"{name}_f"], [f"{name}_c"], [f"{name}_w"],
        [(3.0, JobStep(name))],
    )  # fmt: skip


def test_adding_keeps_all_that_both_must_ring_for_in_order() -> None:
    both = one_of_each("a")
    both.add(one_of_each("b"))
    for field in fields(FollowUps):
        assert getattr(both, field.name) == [
            *getattr(one_of_each("a"), field.name), *getattr(one_of_each("b"), field.name)
        ]  # fmt: skip
    assert one_of_each("a") != both, "the one that was added to is the one that changed"


Sent = list[tuple[Any, ...]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What is rung for: (task, args, countdown, eta), or ("contended", {post: address})."""
    sent: Sent = []

    def send(task: str, args: Any, *, countdown: float | None = None, eta: Any = None, **_: Any) -> bool:
        sent.append((task, args, countdown, eta))
        return True

    def ring(addresses: Any) -> None:
        if addresses:
            sent.append(("contended", addresses))

    def ring_edits(posts: Any, reply_to: str | None = None) -> bool:
        return send("edits.apply", [posts, reply_to])

    monkeypatch.setattr(queue, "send", send)
    monkeypatch.setattr(doorbells, "ring", ring_edits)
    monkeypatch.setattr(queue, "free_capacity", lambda _: 1)
    monkeypatch.setattr(contended_posts, "ring", ring)
    return sent


def snoozed(seconds: float, *messages: Any) -> FollowUps:
    found = FollowUps()
    found.snooze(seconds, *messages)
    return found


@pytest.mark.parametrize(
    ("follow_ups", "expected"),
    [
        (FollowUps(), []),
        (FollowUps(publishes=[Publish("p", 3, LATER)]), [("posts.publish", [[["p", 3]]], None, LATER)]),
        (
            FollowUps(publishes=[Publish("p", 3), Publish("q", 1)]),
            [("posts.publish", [[["p", 3], ["q", 1]]], None, None)],
        ),
        (FollowUps(renders=[Render("p", 2)]), [("posts.render", ["p", 2], None, None)]),
        (FollowUps(edits=["p"]), [("edits.apply", [["p"], "me#1"], None, None)]),
        (FollowUps(edits_first=["p"]), [("edits.apply", [["p"], None], None, None)]),
        (FollowUps(contended=["p"]), [("contended", {"p": "me#1"})]),
        (FollowUps(webhooks=["p"]), [("webhooks.deliver", [["p"]], None, None)]),
        (
            snoozed(SNOOZE, Publish("p", 3), Publish("q", 1)),
            [("posts.publish", [[["p", 3], ["q", 1]]], SNOOZE, None)],
        ),
        (snoozed(7.5, Render("p", 2)), [("posts.render", ["p", 2], 7.5, None)]),
        (snoozed(SNOOZE, JobStep("j", "j 1 of 2")), [("reschedules.run_chunk", ["j"], SNOOZE, None)]),
        (snoozed(1.5, Bell(["p", "q"], "me#1")), [("edits.apply", [["p", "q"], "me#1"], 1.5, None)]),
        (snoozed(0.0, JobStep("j"), JobStep("j")), [("reschedules.run_chunk", ["j"], None, None)] * 2),
    ],
)  # fmt: skip
def test_each_follow_up_is_one_message_and_nothing_is_none(
    sent: Sent, follow_ups: FollowUps, expected: list[Any]
) -> None:
    follow_ups.send(dict.fromkeys("pq", "me#1"))
    assert sent == expected


def test_snoozes_of_the_same_seconds_share_messages_and_others_do_not(sent: Sent) -> None:
    both = snoozed(2.0, Publish("p", 1))
    both.add(snoozed(1.0, Publish("q", 1)))
    both.add(snoozed(2.0, Publish("r", 1)))
    both.send()
    assert [(args, countdown) for _, args, countdown, _ in sent] == [([[["q", 1]]], 1.0), ([[["p", 1], ["r", 1]]], 2.0)]


def test_a_claim_that_waits_for_edits_does_not_fill_a_queue_of_edits_that_no_worker_serves(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "free_capacity", lambda _: 0)
    FollowUps(edits=["p"], edits_first=["q"]).send()
    assert sent == [("edits.apply", [["p"], None], None, None)]


def test_the_edits_of_each_process_are_rung_for_with_its_own_address(sent: Sent) -> None:
    FollowUps(edits=["p", "q", "r", "s"]).send({"p": "me#1", "q": "you#4", "r": "me#1"})
    assert [args for _, args, *_ in sent] == [[["p", "r"], "me#1"], [["q"], "you#4"], [["s"], None]]


def test_something_to_ring_for_is_true_and_nothing_is_not() -> None:
    assert not FollowUps()
    for field in fields(FollowUps):
        assert FollowUps(**{field.name: getattr(one_of_each("a"), field.name)})


def test_the_worker_rings_through_follow_ups_only() -> None:
    worker = Path(__file__).parent.parent.parent / "worker"
    rings = re.compile(r"queue\.(send|ring_|enqueue_)|(contended_posts|doorbells)\.ring")
    found = {path.relative_to(worker).as_posix() for path in worker.rglob("*.py") if rings.search(path.read_text())}
    # The edge of a task puts its own message back on its queue, as it came.
    assert found == {"follow_ups.py", "runtime/app.py"}
