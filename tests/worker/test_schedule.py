"""What is due soon is marked and enqueued once; what was forgotten is found again."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared import task_names
from shared.broker import queue
from shared.store import schedule as schedule_store
from tests import factories
from tests.worker.bulk import locked_by_a_person
from tests.worker.fake_services import FakeServices, change, expire, fake_services
from worker import publish, render, rescue, schedule
from worker.published import Published
from worker.render import Rendering

__all__ = ["fake_services"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """What is sent: (task, args, eta)."""
    sent: list[tuple[str, Any, Any]] = []

    def send(task: str, args: Any, **given: Any) -> bool:
        sent.append((task, args, given.get("eta")))
        return True

    monkeypatch.setattr(queue, "send", send)
    return sent


def seconds(count: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=count)


def test_posts_within_the_horizon_are_sent_for_once_with_their_time(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        near = factories.post(tx, scheduled_time=seconds(30))
        factories.post(tx, scheduled_time=seconds(90))
    assert schedule.dispatch_due() == 1
    goes = factories.row(engine, "posts", near).scheduled_time
    assert sent == [("posts.publish", [[[near, 1]]], goes)]
    assert schedule.dispatch_due() == 0
    stored = factories.row(engine, "posts", near)
    assert (stored.enqueued_revision, stored.enqueued_at is not None) == (1, True)


def test_posts_of_one_moment_share_messages(engine: Engine, sent: list[Any]) -> None:
    goes = seconds(20)
    with engine.begin() as tx:
        posts = {factories.post(tx, scheduled_time=goes) for _ in range(120)}
    assert schedule.dispatch_due() == 120
    assert [len(args[0]) for _, args, _ in sent] == [50, 50, 20]
    assert {pair[0] for _, args, _ in sent for pair in args[0]} == posts


def test_a_post_that_moved_is_sent_for_again(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(30))
    schedule.dispatch_due()
    change(engine, "posts", post, schedule_revision=2)
    schedule.dispatch_due()
    assert [args for _, args, _ in sent] == [[[[post, 1]]], [[[post, 2]]]]


def test_a_post_overdue_by_two_seconds_is_sent_again_every_five_without_a_time(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(-1), enqueued_revision=1, enqueued_at=seconds(-6))
    assert schedule.dispatch_due() == 0
    change(engine, "posts", post, scheduled_time=seconds(-3))
    assert schedule.dispatch_due() == 1
    assert sent == [("posts.publish", [[[post, 1]]], None)]
    assert schedule.dispatch_due() == 0
    change(engine, "posts", post, enqueued_at=seconds(-6))
    assert schedule.dispatch_due() == 1


def test_a_post_that_waits_for_its_next_try_is_sent_for_at_that_time(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        soon = factories.post(tx, scheduled_time=seconds(-60), retry_at=seconds(40))
        factories.post(tx, scheduled_time=seconds(-60), retry_at=seconds(300))
    assert schedule.dispatch_due() == 1
    assert sent == [("posts.publish", [[[soon, 1]]], factories.row(engine, "posts", soon).retry_at)]


def test_claimed_deleted_and_finished_posts_are_left_alone(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        past = seconds(-60)
        factories.post(tx, scheduled_time=past, deleted_at=past)
        factories.post(tx, scheduled_time=past, status="posted", posted_at=past)
        factories.post(tx, scheduled_time=past, claim_kind="publish", claim_token="c", claim_expires_at=seconds(9))
        factories.slides(tx, scheduled_time=past)
    assert schedule.dispatch_due() == 0


def test_a_post_that_is_moved_away_between_look_and_lock_is_not_sent_for(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(30))
    with engine.begin() as tx:
        (found,) = schedule_store.find_due(tx, "publish", 60, 10)
        assert found.post_id == post
        tx.execute(text("UPDATE posts SET scheduled_time = now() + interval '1 year', schedule_revision = 2"))
        assert schedule_store.mark_due(tx, "publish", [found.post_id], 60) == []


def test_a_post_that_somebody_holds_is_skipped(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        held, free = factories.post(tx, scheduled_time=seconds(30)), factories.post(tx, scheduled_time=seconds(30))
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        assert schedule.dispatch_due() == 1
    assert sent[0][1] == [[[free, 1]]]


def test_posts_behind_any_number_of_held_ones_are_sent_for_at_once(
    engine: Engine, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "BATCH", 3)
    with engine.begin() as tx:
        # Eight at one moment, so that pages end among them.
        posts = [factories.post(tx, scheduled_time=goes) for goes in [seconds(10)] * 8 + [seconds(20)] * 4]
        slides = [
            factories.slides(tx, created_at=seconds(-9), scheduled_time=seconds(after)) for after in (10, 11, 12, 13)
        ]
    with locked_by_a_person(engine, *posts[:7], *slides[:3]):
        assert schedule.dispatch_due() == 5
        assert schedule.dispatch_renders() == 1
    found = [pair[0] for task, args, _ in sent if task == task_names.POSTS_PUBLISH for pair in args[0]]
    assert found == posts[7:]
    assert sent[-1] == (task_names.POSTS_RENDER, [slides[3], 1], None)


def test_posts_among_held_ones_take_no_more_than_the_queues_room(
    engine: Engine, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "free_capacity", lambda _: 2)
    with engine.begin() as tx:
        slides = [
            factories.slides(tx, created_at=seconds(-9), scheduled_time=seconds(after)) for after in range(10, 16)
        ]
    with locked_by_a_person(engine, *slides[::2]):
        assert schedule.dispatch_renders() == 2
    assert [args[0] for _, args, _ in sent] == [slides[1], slides[3]]


def test_a_queue_that_is_full_is_not_rung_and_nothing_is_marked(
    engine: Engine, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(-30))
        factories.slides(tx, created_at=seconds(-30))
    monkeypatch.setattr(queue, "free_capacity", lambda _: 0)
    assert rescue.rescue() == {}
    assert sent == []
    assert factories.row(engine, "posts", post).enqueued_at is None


def test_rescue_rings_for_renders_whose_message_was_lost(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        lost = factories.slides(tx, created_at=seconds(-9))
        factories.slides(tx, created_at=seconds(-9), enqueued_at=seconds(-1))
        factories.slides(tx, created_at=seconds(-9), retry_at=seconds(9))
        factories.slides(tx)
    assert rescue.rescue() == {"renders": 1}
    assert sent == [("posts.render", [lost, 1], None)]
    assert rescue.rescue() == {}


def test_rescue_rings_for_expired_claims_under_the_fence_of_their_kind(
    engine: Engine, fake_services: FakeServices, sent: list[Any]
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(-60), schedule_revision=4)
        slides = factories.slides(tx, content_revision=7)
        factories.post(
            tx, scheduled_time=seconds(-60), claim_kind="publish", claim_token="c", claim_expires_at=seconds(30)
        )
    publish.claim({post: 4}, Published())
    assert render._claim(slides, 7, Rendering()) is not None
    assert rescue.rescue() == {}
    expire(engine, post)
    expire(engine, slides)
    assert rescue.rescue() == {"claims": 2}
    assert sent == [("posts.publish", [[[post, 4]]], None), ("posts.render", [slides, 7], None)]


def test_a_forgotten_edit_has_its_turn_however_many_older_ones_wait_for_contended_posts(
    engine: Engine, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "DOORBELL_POSTS", 3)
    monkeypatch.setattr(queue, "free_capacity", lambda _: 1)
    with engine.begin() as tx:
        posts = [factories.post(tx) for _ in range(5)]
        for post in posts:
            factories.edit(tx, post, {"caption": "second"})
        tx.execute(text("UPDATE edits SET created_at = now() - interval '9 seconds'"))
    with locked_by_a_person(engine, *posts[:4]):
        for _ in range(50):  # by lot: three times in five it is the fifth's turn
            assert rescue.rescue() == {"edits": 3}
    assert posts[4] in {post for _, args, _ in sent for post in args[0]}


def test_expired_claims_have_their_turn_however_many_of_contended_posts_there_are(
    engine: Engine, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "EXPIRED_AT_ONCE", 3)
    ends = [seconds(after) for after in range(-9, -4)]
    with engine.begin() as tx:
        posts = [factories.post(tx, claim_kind="publish", claim_token="c", claim_expires_at=end) for end in ends]
        slides = [factories.slides(tx, claim_kind="render", claim_token="c", claim_expires_at=end) for end in ends]
    with locked_by_a_person(engine, *posts[:4], *slides[:4]):
        for _ in range(50):  # by lot, too
            rescue.rescue()
    assert [posts[4], 1] in [pair for task, args, _ in sent if task == task_names.POSTS_PUBLISH for pair in args[0]]
    assert [slides[4], 1] in [args for task, args, _ in sent if task == task_names.POSTS_RENDER]


def test_an_expired_claim_of_a_contended_post_is_not_rung_for_again_and_again(engine: Engine, sent: list[Any]) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, claim_kind="publish", claim_token="c", claim_expires_at=seconds(-9))
    with locked_by_a_person(engine, post):
        assert [rescue.rescue() for _ in range(3)] == [{}, {}, {}]
    assert rescue.rescue() == {"claims": 1}


def test_what_is_due_is_found_by_its_index_however_many_posts_wait(engine: Engine) -> None:
    with engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                        scheduled_time, status)
                    SELECT 'far_' || n, 'w', 'a', 'tiktok', 'video', '"https://a.example/1.mp4"', '',
                        now() + interval '30 days', 'generated' FROM generate_series(1, 5000) n""")
        )
    with engine.connect() as tx:
        behind = {"after_time": seconds(-1), "after_id": "post_1", "limit": 10}
        hints = schedule_store._hints("publish", 60.0) | behind
        plan = "\n".join(tx.execute(text(f"EXPLAIN {schedule_store._FIND['publish'].text}"), hints).scalars())
    assert "ix_posts_free" in plan
    assert re.search(r"Index Cond: .*scheduled_time <= .*scheduled_time >= ", plan), plan
    assert re.search(r"Presorted Key: (posts\.)?scheduled_time", plan), plan
