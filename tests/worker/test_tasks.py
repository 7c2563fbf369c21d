"""The tasks at the edge: what a stranger puts on a queue, and what is rung below the commits."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.broker import queue
from tests import factories
from tests.worker.fake_services import DONE, FakeServices, change, fake_services
from worker import tasks
from worker.apply import Applied

__all__ = ["fake_services"]

STRANGE: list[Any] = [
    None, 7, "post", {}, [], [None], [[]], [["post_1"]], [["post_1", "1"]], [[1, 1]], [["post_1", 1, 1]],
    [["a\u0000b", 1]], [["\ud800", 1]], [["", 1]], [["p" * 300, 1]], [["post_nobody", 10**30]], [["post_nobody", -1]],
]  # fmt: skip


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, float | None]]:
    """What is sent: (task, args, countdown)."""
    sent: list[tuple[str, Any, float | None]] = []

    def send(task: str, args: Any, **given: Any) -> bool:
        sent.append((task, args, given.get("countdown")))
        return True

    monkeypatch.setattr(queue, "send", send)
    return sent


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_messages_that_nobody_of_ours_sent_are_no_ops(
    engine: Engine, fake_services: FakeServices, sent: list[Any], strange: Any
) -> None:
    tasks.publish_posts(strange)
    tasks.render_post(strange, 1)
    tasks.render_post("post_nobody", strange)
    tasks.deliver_webhooks(strange)
    assert (fake_services.asked, sent) == ([], [])


def test_a_strange_id_in_a_message_costs_its_neighbours_nothing(
    engine: Engine, fake_services: FakeServices, sent: list[Any]
) -> None:
    fake_services.usual = DONE
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-5))
    assert tasks.publish_posts([["a\u0000b", 1], [post, 1], None]) == {"done": 1}


def test_what_comes_early_is_sent_again_by_the_seconds_that_are_left(
    engine: Engine, fake_services: FakeServices, sent: list[Any]
) -> None:
    goes = datetime.now(UTC) + timedelta(seconds=30)
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=goes) for _ in range(2)]
    assert tasks.publish_posts([[post, 1] for post in posts]) == {"not_due": 2}
    ((task, (pairs,), countdown),) = sent
    assert (task, sorted(pairs)) == ("posts.publish", [[post, 1] for post in posts])
    assert 25 < countdown <= 30


def test_while_nobody_works_on_edits_a_claim_that_waits_for_them_does_not_fill_their_queue(
    engine: Engine, fake_services: FakeServices, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-5))
        change_id = factories.edit(tx, post, {"caption": "poison"})
    change(engine, "edits", change_id, attempts=1)
    monkeypatch.setattr("worker.publish.apply_edits", lambda _: Applied())
    monkeypatch.setattr(queue, "free_capacity", lambda _: 0)
    assert tasks.publish_posts([[post, 1]]) == {"edits_first": 1}
    assert sent == [("posts.publish", [[[post, 1]]], 0.25)]
    monkeypatch.setattr(queue, "free_capacity", lambda _: 1)
    tasks.publish_posts([[post, 1]])
    assert ("edits.apply", [[post], None], None) in sent
