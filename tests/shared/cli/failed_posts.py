"""`redraft posts` as a script runs it, and posts as the answers of a publisher leave them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from shared.cli import posts as command
from shared.domain.service_answers import Reply
from tests import factories
from tests.worker.fake_services import FakeServices, expire, publish_now

REFUSED = Reply("refused", message="suspended")
BROKEN = Reply("server_error", message="503")


def redraft(*arguments: str, says: str | None = None) -> Result:
    return CliRunner().invoke(command.app, list(arguments), input=says)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


def retried(*arguments: str, code: int = 0) -> dict[str, str | None]:
    result = redraft("retry", *arguments, "--yes", "--json")
    assert result.exit_code == code, result.output
    return {one["postId"]: one["back"] for one in json.loads(result.stdout)}


def due(engine: Engine, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, scheduled_time=factories.soon(-5), **columns)


def failed(engine: Engine, fake_services: FakeServices, reply: Reply = REFUSED, tries: int = 1) -> str:
    post = due(engine)
    fake_services.replies = [reply] * tries
    for _ in range(tries):
        publish_now((post, 1))
        if factories.row(engine, "posts", post).claim_kind:
            expire(engine, post)
    assert factories.row(engine, "posts", post).status == "failed"
    return post
