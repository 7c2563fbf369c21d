"""A receiver of webhooks: what is written down for it, and what it was sent."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.events import Event
from shared.store import webhooks as webhooks_store
from tests import factories
from tests.worker.fake_services import FakeServices
from worker import webhooks
from worker.follow_ups import FollowUps
from worker.outbound.call_pool import CallPool


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:1/webhooks")
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


def events(engine: Engine, post: str | None = None) -> list[Any]:
    with engine.connect() as tx:
        return list(
            tx.execute(
                text("SELECT * FROM webhook_events WHERE post_id = coalesce(:post, post_id) ORDER BY seq"),
                {"post": post},
            )
        )


def told(engine: Engine, *posts: str, types: tuple[str, ...] = ("edit.applied",)) -> None:
    """Events of posts, as if something had happened to them."""
    with engine.begin() as tx:
        for kind in types:
            for post in posts:
                webhooks_store.record(tx, [Event(kind, factories.WORKSPACE, post, {"postId": post})])


def deliver(*posts: str, room: int = 8) -> tuple[dict[str, int], list[str]]:
    rung = FollowUps()
    return webhooks.deliver(posts, CallPool(room), rung.add), rung.webhooks


def sent(fake_services: FakeServices) -> list[tuple[str, str]]:
    return [(json.loads(asked.body)["type"], json.loads(asked.body)["data"]["postId"]) for asked in fake_services.asked]
