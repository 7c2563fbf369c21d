"""The calls of a publish: capacity for them, and their finishes, which outlast a locked row and a restart."""

import time
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from shared.store import claims as claims_store
from tests import factories
from tests.worker.fake_services import (
    BROKEN,
    NEVER,
    PAST,
    UNKNOWN,
    FakeServices,
    attempts,
    due,
    expire,
    fake_services,
    in_thread,
    publish_now,
    publish_rows,
    until,
)
from worker import publish
from worker.follow_ups import FollowUps
from worker.outbound.call_pool import CallPool, Completed
from worker.published import Called, Published, finish

__all__ = ["due", "fake_services"]

REFUSED = Reply("refused", message="no such account")


def test_a_finish_that_comes_after_its_claim_was_retaken_changes_nothing(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    def retaken(_: Any) -> Reply:
        expire(engine, due)
        assert len(publish.claim({due: 1}, Published())) == 1
        return BROKEN

    fake_services.replies = [retaken]
    assert publish_now((due, 1))[0] == {due: "stale"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind, stored.platform_post_id) == ("generated", "publish", None)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, None)]


@pytest.mark.parametrize(
    "reply", [UNKNOWN, REFUSED, NEVER, BROKEN, None], ids=lambda reply: getattr(reply, "kind", "died")
)
def test_a_2xx_that_comes_after_its_claim_was_retaken_ends_the_post_whatever_the_next_try_is_answered(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply | None
) -> None:
    (first,) = publish.claim({due: 1}, Published())
    expire(engine, due)
    (second,) = publish.claim({due: 1}, Published())
    done = Reply("done", {"platformPostId": "late"})
    finished = Published()
    assert finish([Completed(first, done, time.monotonic())], finished) == []
    assert finished.outcomes == {due: "stale"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.claim_token) == ("generated", second.attempt.claim_token)
    if reply is None:
        expire(engine, due)
        assert publish_now((due, 1))[0] == {due: "done"}
    else:
        assert finish([Completed(second, reply, time.monotonic())], finished) == []
        assert finished.outcomes == {due: "done"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, stored.claim_kind) == ("posted", "late", None)
    assert publish_rows(engine, due) == [(1, "done"), (2, reply.kind if reply else "unknown")]
    assert attempts(engine, due)[0].platform_post_id == "late"
    assert fake_services.asked == []


def test_a_claim_too_old_to_begin_is_not_called_for(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claimed,) = publish.claim({due: 1}, Published())
    old = Called(claimed.attempt, None, claimed.claimed_at, claimed.began - 31)
    assert publish._call(old).kind == "never_started"
    assert fake_services.asked == []


def test_a_finish_waits_for_a_row_that_a_person_holds_and_its_neighbours_do_not(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = factories.post(tx, scheduled_time=factories.soon(PAST))
    people: list[Any] = []

    def taken(_: Any) -> Reply:
        if not people:
            people.append(engine.connect())
            people[0].execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        return Reply("done", {})

    fake_services.usual = taken
    with in_thread(lambda: publish_now((due, 1), (neighbour, 1))):
        until(lambda: factories.row(engine, "posts", neighbour).status == "posted")
        assert factories.row(engine, "posts", due).status == "generated"
        people[0].rollback()
        people[0].close()
    assert factories.row(engine, "posts", due).status == "posted"


def test_a_finish_outlasts_a_database_that_goes_away(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = claims_store.finish_publishes
    lost: list[int] = []

    def cut(tx: Any, finishes: Any) -> Any:
        if finishes and not lost:
            lost.append(1)
            tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return finish(tx, finishes)

    monkeypatch.setattr(claims_store, "finish_publishes", cut)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert (lost, len(fake_services.asked)) == ([1], 1)


def test_a_surprise_in_the_claim_loses_no_call_that_is_being_made(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        second = factories.post(tx, scheduled_time=factories.soon(PAST))
    claim = publish.claim

    def surprising(fenced: Any, done: Any) -> Any:
        if second in fenced:
            raise ZeroDivisionError
        return claim(fenced, done)

    monkeypatch.setattr(publish, "claim", surprising)
    calls = CallPool(1)
    with pytest.raises(ZeroDivisionError):
        publish.publish([(due, 1), (second, 1)], calls, FollowUps().add)
    assert factories.row(engine, "posts", due).status == "posted"
    assert calls.take(5, 0) == 1


def test_posts_beyond_the_room_for_calls_are_claimed_when_there_is_room(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=factories.soon(PAST)) for _ in range(7)]
    assert publish_now(*((post, 1) for post in posts), room=2)[0] == dict.fromkeys(posts, "done")
    assert len(fake_services.asked) == 7


def test_without_room_for_calls_nothing_is_claimed(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 0.01)
    calls = CallPool(1)
    assert calls.take(1, 0) == 1
    assert publish.publish([(due, 1)], calls, FollowUps().add).outcomes == {due: "busy"}
    assert factories.row(engine, "posts", due).claim_kind is None


def test_publishes_take_a_fixed_number_of_statements_whatever_the_number_of_posts(
    engine: Engine, fake_services: FakeServices
) -> None:
    def statements(count: int) -> int:
        with engine.begin() as tx:
            posts = [factories.post(tx, scheduled_time=factories.soon(PAST)) for _ in range(count)]
        with factories.statements() as seen:
            called = publish.claim(dict.fromkeys(posts, 1), Published())
        assert len(called) == count
        return len(seen)

    statements(1)  # SQLAlchemy and psycopg ask a new server some questions of their own
    assert statements(1) == statements(40) == 8
