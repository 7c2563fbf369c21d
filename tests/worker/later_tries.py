"""Further tries of a post, as time passes and operators put it back."""

import time
from datetime import timedelta

from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from shared.store import db, failures
from shared.store import posts as posts_store
from shared.store.acts import Actor
from tests import factories
from tests.worker.fake_services import UNKNOWN, FakeServices, change, expire, publish_now
from worker.outbound.call_pool import Completed
from worker.published import Called, Published, finish

REFUSED = Reply("refused", message="no such account")


def next_try(engine: Engine, post: str) -> str:
    """How the next try ends, made as soon as it is due."""
    if factories.row(engine, "posts", post).claim_kind:
        expire(engine, post)
    change(engine, "posts", post, retry_at=None)
    return publish_now((post, 1))[0][post]


def time_passes(engine: Engine, post: str, **given: float) -> None:
    """Every try so far lies further back."""
    with engine.begin() as tx:
        tx.execute(
            text("UPDATE publish_attempts SET started_at = started_at - :passed WHERE post_id = :id"),
            {"id": post, "passed": timedelta(**given)},
        )


def put_back(post: str, *, not_sent: bool = False) -> list[str]:
    with db.transaction() as tx:
        locked = posts_store.lock_posts(tx, [post], "wait")
        return [one.back for one in failures.retry(tx, locked.values(), Actor("kim"), not_sent=not_sent)]


def too_old(post: str) -> bool:
    with db.transaction() as tx:
        return failures.keys_too_old(tx, [post]) == [post]


def spent(engine: Engine, fake_services: FakeServices, post: str) -> None:
    """Three tries without an answer: failed."""
    fake_services.replies = [UNKNOWN] * 3
    assert [next_try(engine, post) for _ in range(3)] == ["unknown", "unknown", "failed"]


def late(called: Called, reply: Reply) -> str:
    done = Published()
    assert finish([Completed(called, reply, time.monotonic())], done) == []
    return done.outcomes[called.attempt.post_id]
