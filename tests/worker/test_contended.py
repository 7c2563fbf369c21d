"""Contended posts come back by one message: edits that come meanwhile are left to it, and it leaves none behind."""

from collections.abc import Collection
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from shared.broker import answers, contended_posts, queue
from tests import factories
from tests.api.answers import messages_at
from tests.worker.bulk import locked_by_a_person
from worker import apply, contended, tasks


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, list[str]]]:
    """Which ends were announced, and to whom."""
    told: list[tuple[str | None, list[str]]] = []

    def announcement(reply_to: str | None, ends: Any, **_: Any) -> None:
        told.append((reply_to, sorted(end.id for end in ends)))

    monkeypatch.setattr(answers, "announcement", announcement)
    return told


def contended_bells(url: str) -> list[list[Any]]:
    """The arguments of the messages under way that try held posts again, the latest first."""
    sent = [arguments for arguments, _ in messages_at(url, "edits")]
    return [arguments for arguments in sent if arguments[0] == []]


def test_however_often_a_contended_post_is_rung_for_one_message_comes_back_and_one_task_waits(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, redis_url: str
) -> None:
    waited: list[str] = []
    wait = apply._apply_contended

    def noted(post: str, *rest: Any, **given: Any) -> Any:
        waited.append(post)
        return wait(post, *rest, **given)

    monkeypatch.setattr(apply, "_apply_contended", noted)
    # The five calls take longer than a second on a busy machine.
    monkeypatch.setattr(contended_posts, "BELIEVED", 60.0)
    with engine.begin() as tx:
        post = factories.post(tx)
    ids = []
    with locked_by_a_person(engine, post):
        for number in range(5):
            with engine.begin() as tx:
                ids.append(factories.edit(tx, post, {"caption": f"hot {number}"}))
            assert tasks.apply_edits([post], f"me#{number + 1}") == {"contended": 1}
    assert waited == [post]
    [bell] = contended_bells(redis_url)
    assert len(messages_at(redis_url, "edits")) == 1
    assert tasks.apply_edits(*bell) == {"applied": 5}
    assert [factories.row(engine, "edits", edit).status for edit in ids] == ["applied"] * 5
    assert contended_posts.take(None) == {}


def test_who_asked_last_is_told_how_the_edits_of_a_contended_post_ended(
    engine: Engine, told: list[tuple[str | None, list[str]]]
) -> None:
    with engine.begin() as tx:
        edit = factories.edit(tx, post := factories.post(tx), {"caption": "x"})
    contended_posts.ring({post: "me#6"})
    contended_posts.ring({post: "me#7"})
    tasks.apply_edits([], None)
    assert told == [("me#7", [edit])]


def test_each_process_is_told_once_and_of_the_posts_that_it_asked_for(
    engine: Engine, told: list[tuple[str | None, list[str]]]
) -> None:
    ours: list[str] = []
    theirs: list[str] = []
    taken: list[str] = []
    with engine.begin() as tx:
        for number in range(10):
            for whose, edits in (("me", ours), ("you", theirs), ("nobody", taken)):
                edits.append(factories.edit(tx, post := factories.post(tx), {"caption": "x"}))
                contended_posts.ring({post: f"{whose}#{number}"})
                if edits is taken:
                    tx.execute(
                        text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = :id"), {"id": post}
                    )
    tasks.apply_edits([], None)
    heard = {str(reply_to).partition("#")[0]: ends for reply_to, ends in told}
    assert len(told) == 3
    assert heard == {"me": sorted(ours), "you": sorted(theirs), "nobody": sorted(taken)}


def test_messages_that_came_twice_become_one_while_a_post_is_held(engine: Engine, redis_url: str) -> None:
    with engine.begin() as tx:
        factories.edit(tx, post := factories.post(tx), {"caption": "x"})
    contended_posts.ring({post: None})
    [bell] = contended_bells(redis_url)
    with locked_by_a_person(engine, post):
        messages: list[list[Any]] = [bell, bell, [[], None], ["no list", "no token"]]
        for message in messages:
            assert tasks.apply_edits(*message) == {"contended": 1}
    assert len(contended_bells(redis_url)) == 2, "the one that was, and the one that comes back"


def test_of_more_posts_than_a_message_tries_the_rest_are_tried_by_the_next(engine: Engine, redis_url: str) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        edits = [factories.edit(tx, post, {"caption": "x"})]
    contended_posts.ring(dict.fromkeys([post, *(f"nobody's_{number}" for number in range(queue.DOORBELL_POSTS))]))
    for count in (1, 2):
        latest, *_ = contended_bells(redis_url)
        tasks.apply_edits(*latest)
        assert len(contended_bells(redis_url)) == 2, count
    assert contended_posts.take(None) == {}
    assert [factories.row(engine, "edits", edit).status for edit in edits] == ["applied"]


@pytest.mark.usefixtures("engine")
def test_while_postgresql_is_away_the_message_for_many_contended_posts_does_not_multiply(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("SELECT 1", None, psycopg.OperationalError("the connection is lost"))

    monkeypatch.setattr(contended, "apply_edits", away)
    contended_posts.ring(dict.fromkeys(f"p{number}" for number in range(queue.DOORBELL_POSTS)))
    for count in range(1, 4):
        latest, *_ = contended_bells(redis_url)
        assert "put_off" in tasks.apply_edits(*latest)
        assert len(contended_bells(redis_url)) == 1 + count, "as many as have been handed in, and the one put off"


def test_an_address_that_nobody_listens_at_costs_a_task_nothing(engine: Engine, redis_url: str) -> None:
    with engine.begin() as tx:
        change = {"scheduledTime": "2031-01-01T09:00", "timezone": "Asia/Tokyo"}
        edit = factories.edit(tx, post := factories.post(tx), change)
    assert tasks.apply_edits([post], "\ud800#1") == {"applied": 1}
    assert factories.row(engine, "edits", edit).status == "applied"


def test_an_edit_that_was_left_to_the_message_as_it_forgot_the_post_is_rung_for(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, redis_url: str
) -> None:
    with engine.begin() as tx:
        factories.edit(tx, post := factories.post(tx), {"caption": "first"})
    contended_posts.ring({post: None})
    forget = contended_posts.forget

    def slow(posts: Collection[str]) -> None:
        with engine.begin() as tx:
            factories.edit(tx, post, {"caption": "just now"})
        contended_posts.ring({post: None})
        forget(posts)

    monkeypatch.setattr(contended_posts, "forget", slow)
    applied, _ = contended.retry(None)
    assert (len(applied.results), applied.follow_ups.edits) == (1, [post])


def test_a_post_that_is_still_held_is_tried_again_and_a_free_one_is_not(engine: Engine, redis_url: str) -> None:
    with engine.begin() as tx:
        taken, free = factories.post(tx), factories.post(tx)
        for post in (taken, free):
            factories.edit(tx, post, {"caption": "x"})
    contended_posts.ring({taken: "me#1", free: "me#1"})
    with locked_by_a_person(engine, taken):
        [bell] = contended_bells(redis_url)
        assert tasks.apply_edits(*bell) == {"applied": 1, "contended": 1}
    assert len(contended_bells(redis_url)) == 2
    assert contended_posts.take(None) == {taken: "me#1"}
