"""A publisher and renderer in this process: answers that a test has prepared, and what was asked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, text

from shared.domain.service_answers import Reply
from tests import factories
from worker import publish, render
from worker.follow_ups import FollowUps
from worker.outbound import services
from worker.outbound.call_pool import CallPool

DONE = Reply("done", {"platformPostId": "tt_1"})
MADE = Reply(
    "done", {"renderedUrl": "https://cdn.example.com/made.mp4", "thumbnailUrl": "https://cdn.example.com/m.jpg"}
)
NEVER = Reply("never_started", message="connection refused")
UNKNOWN = Reply("unknown", message="timed out")
BROKEN = Reply("server_error", message="503")
PAST = -5
"""Minutes from now: a time at which a post is due."""


@dataclass(frozen=True)
class Asked:
    kind: str
    body: str
    key: str
    attempt: int

    @property
    def post(self) -> dict[str, Any]:
        post: dict[str, Any] = from_json(self.body)["post"]
        return post


@dataclass
class FakeServices:
    """Answers each call with the next of `replies` (a Reply, or a function of the call), then with `usual`."""

    usual: Any = DONE
    replies: list[Any] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __call__(self, kind: str, body: str, key: str, attempt: int, _at: datetime) -> Reply:
        asked = Asked(kind, body, key, attempt)
        self.asked.append(asked)
        reply = self.replies.pop(0) if self.replies else self.usual
        said: Reply = reply(asked) if callable(reply) else reply
        return said


@pytest.fixture
def fake_services(monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    fake_services = FakeServices()
    monkeypatch.setattr(services, "call", fake_services)
    return fake_services


@pytest.fixture
def due(engine: Engine) -> str:
    with engine.begin() as tx:
        return factories.post(tx, scheduled_time=factories.soon(PAST))


def publish_now(*pairs: tuple[str, int], room: int = 8) -> tuple[dict[str, str], FollowUps]:
    """Run one publish task to its end: the outcome of each post, and all that was rung for."""
    rung = FollowUps()
    calls = CallPool(room)
    return publish.publish(pairs, calls, rung.add).outcomes, rung


def render_now(post_id: str, content_revision: int = 1) -> tuple[str, FollowUps]:
    rung = FollowUps()
    return render.render(post_id, content_revision, rung.add).outcome, rung


def attempts(engine: Engine, post_id: str) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(text("SELECT * FROM publish_attempts WHERE post_id = :id ORDER BY id"), {"id": post_id}))


def publish_rows(engine: Engine, post: str) -> list[tuple[Any, ...]]:
    """The number and the outcome of each try."""
    return [(row.try_number, row.outcome) for row in attempts(engine, post)]


def change(engine: Engine, table: str, row_id: str, **columns: Any) -> None:
    """Write columns past everybody; values that begin with `sql:` are expressions."""
    parts, given = [], {"id": row_id}
    for name, value in columns.items():
        if isinstance(value, str) and value.startswith("sql:"):
            parts.append(f"{name} = {value[4:]}")
        else:
            parts.append(f"{name} = :{name}")
            given[name] = value
    with engine.begin() as tx:
        tx.execute(text(f"UPDATE {table} SET {', '.join(parts)} WHERE id = :id"), given)


def at(minutes: float) -> dict[str, str]:
    """An edit's time, so many minutes from now; in a zone without DST, so that tests pass on every day."""
    local = (factories.soon(minutes) + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M")
    return {"scheduledTime": local, "timezone": "Asia/Tokyo"}


def old_edit(tx: Connection, post_id: str, changes: dict[str, Any]) -> str:
    """An edit that was accepted three hours ago and has waited since: a time before now was in the future then."""
    edit_id = factories.edit(tx, post_id, changes)
    tx.execute(text("UPDATE edits SET created_at = now() - interval '3 hours' WHERE id = :id"), {"id": edit_id})
    return edit_id


def expire(engine: Engine, post_id: str) -> None:
    """The claim's time is over."""
    change(engine, "posts", post_id, claim_expires_at="sql:clock_timestamp() - interval '1 second'")


@contextmanager
def in_thread(run: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run beside the test; joined at the end, its exception raised there."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  -- raised again in the test's own thread
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
