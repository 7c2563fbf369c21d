"""`redraft posts` as a script runs it, and posts as the answers of a publisher leave them."""

from typing import Any

from sqlalchemy import Engine

from shared.cli import posts as command
from shared.domain.service_answers import Reply
from tests import factories
from tests.shared.cli.typed import Typed
from tests.worker.fake_services import FakeServices, expire, publish_now

REFUSED = Reply("refused", message="suspended")
BROKEN = Reply("server_error", message="503")


redraft = Typed(command.app)


def retried(*arguments: str, code: int = 0) -> dict[str, str | None]:
    return {one["postId"]: one["back"] for one in redraft.as_json("retry", *arguments, "--yes", code=code)}


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
