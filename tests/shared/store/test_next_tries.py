"""Posts between two tries that are tried at once, because their service is well again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from shared.store import acts, next_tries
from shared.store.acts import Actor
from shared.store.db import transaction
from shared.store.next_tries import TriedNow
from tests import factories
from tests.worker.fake_services import (
    BROKEN,
    MADE,
    NEVER,
    UNKNOWN,
    FakeServices,
    fake_services,
    publish_now,
    publish_rows,
    render_now,
)

__all__ = ["fake_services"]
KIM = Actor("kim")
LOGIN = Reply("misconfigured", message="the service answered 401: token expired")


def tried(engine: Engine, fake_services: FakeServices, reply: Reply, **columns: Any) -> str:
    """A due post whose first try was answered so."""
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-5), **columns)
    fake_services.replies = [reply]
    publish_now((post, 1))
    return post


def waiting(**given: Any) -> list[str]:
    with transaction() as tx:
        return [one.post_id for one in next_tries.waiting(tx, 100, **given)]


def now(*posts: str) -> TriedNow:
    with transaction() as tx:
        return next_tries.try_now(tx, posts, KIM)


def test_a_post_whose_publisher_was_set_up_wrongly_is_tried_at_once_under_its_old_key(
    engine: Engine, fake_services: FakeServices
) -> None:
    post = tried(engine, fake_services, LOGIN)
    before = factories.row(engine, "posts", post)
    assert publish_now((post, 1))[0] != {post: "done"}
    assert waiting() == [post]
    assert now(post) == TriedNow([(post, 1)], [])
    assert publish_now((post, 1))[0] == {post: "done"}
    first, second = fake_services.asked
    assert (first.key, first.body) == (second.key, second.body)
    assert publish_rows(engine, post) == [(1, "misconfigured"), (2, "done")]
    with engine.connect() as tx:
        [act] = acts.of(tx, post, 9)
    assert act.words() == "tried at once by kim; before: generated"
    assert act.before == {"nextTryAt": before.claim_expires_at.isoformat()}


@pytest.mark.parametrize(
    ("reply", "means"),
    [
        (LOGIN, True),
        (BROKEN, True),
        (NEVER, True),
        # It may have gone out, asks to wait, or is still at work: each keeps its own time.
        (UNKNOWN, False),
        (Reply("not_now", message="slow down", retry_after=60), False),
        (Reply("processing", message="at work"), False),
        (Reply("refused", message="suspended"), False),
        (Reply("done"), False),
    ],
)
def test_only_what_another_try_may_mend_is_meant(
    engine: Engine, fake_services: FakeServices, reply: Reply, *, means: bool
) -> None:
    post = tried(engine, fake_services, reply)
    before = factories.row(engine, "posts", post)
    assert waiting() == ([post] if means else [])
    assert now(post).publishes == ([(post, 1)] if means else [])
    after = factories.row(engine, "posts", post)
    assert (after == before) == (not means)


def test_a_render_that_waits_for_its_next_try_is_rendered_at_once(engine: Engine, fake_services: FakeServices) -> None:
    with engine.begin() as tx:
        post = factories.slides(tx, scheduled_time=factories.soon(-5))
    fake_services.replies = [BROKEN, MADE]
    render_now(post)
    assert waiting() == [post]
    assert now(post).renders == [(post, 1)]
    assert render_now(post)[0] == "done"


def test_the_filters_choose_by_words_workspace_and_account(engine: Engine, fake_services: FakeServices) -> None:
    one = tried(engine, fake_services, LOGIN)
    other = tried(engine, fake_services, BROKEN, account_id=factories.INSTAGRAM)
    assert waiting() == sorted([one, other])
    assert waiting(reason="TOKEN expired") == [one]
    assert waiting(reason="server_error") == [other]
    assert waiting(account_id=factories.INSTAGRAM) == [other]
    assert waiting(workspace_id="ws_other") == []


def test_a_post_whose_call_is_under_way_and_a_locked_one_are_left_alone(
    engine: Engine, fake_services: FakeServices
) -> None:
    post = tried(engine, fake_services, LOGIN)
    with engine.begin() as other:
        other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        assert now(post) == TriedNow([], [])
    with engine.begin() as tx:
        # As a claim under way looks: its own try has no outcome.
        tx.execute(text("UPDATE publish_attempts SET outcome = NULL, finished_at = NULL"))
    assert waiting() == []
    assert now(post) == TriedNow([], [])


def test_two_at_the_same_moment_end_each_wait_once(engine: Engine, fake_services: FakeServices) -> None:
    posts = [tried(engine, fake_services, LOGIN) for _ in range(8)]
    together = threading.Barrier(3)

    def press(_: int) -> list[tuple[str, int]]:
        together.wait(10)
        return now(*posts).publishes

    with ThreadPoolExecutor(3) as pool:
        done = [one for some in pool.map(press, range(3)) for one in some]
    assert len(done) == len(set(done))
    with engine.connect() as tx:
        kept = tx.execute(text("SELECT count(*), count(DISTINCT subject_id) FROM acts")).one()
    assert kept == (len(done), len(done))
