"""A 2xx that comes after its post was given up, or under an older key: it is found, and it is the end."""

import time

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from shared.settings import settings
from shared.store import acts as acts_store
from shared.store import db, failed_posts
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store.publish_attempts import AttemptResult
from tests import factories
from tests.worker.fake_services import (
    BROKEN,
    NEVER,
    UNKNOWN,
    FakeServices,
    attempts,
    change,
    due,
    fake_services,
    publish_rows,
)
from tests.worker.later_tries import REFUSED, late, next_try, put_back, spent, time_passes, too_old
from worker import publish
from worker.outbound.call_pool import Completed
from worker.published import Called, Published, finish, finish_unnoticed

__all__ = ["due", "fake_services"]


def test_no_operators_word_undoes_a_2xx_that_is_on_record(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    with db.autocommit() as tx:
        attempts_store.finish_attempt_alone(tx, AttemptResult(called.attempt.claim_token, "done", None, "tt_late"))
    assert put_back(due, not_sent=True) == ["closed"]
    assert [row.not_sent for row in attempts(engine, due)] == [False]
    assert next_try(engine, due) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, fake_services.asked) == ("posted", "tt_late", [])


def test_rescue_finishes_a_failed_post_whose_2xx_was_recorded_by_a_worker_that_died(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    assert finish_unnoticed() == []
    with db.autocommit() as tx:
        attempts_store.finish_attempt_alone(tx, AttemptResult(called.attempt.claim_token, "done", None, "tt_late"))
    with engine.connect() as person:
        person.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        assert finish_unnoticed() == []
    assert finish_unnoticed() == [due]
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, fake_services.asked) == ("posted", "tt_late", [])
    assert finish_unnoticed() == []


def test_a_post_whose_2xx_came_late_is_posted_after_a_retry_without_a_call_however_old_its_key(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    spent(engine, fake_services, due)
    with db.transaction() as tx:
        posts_store.lock_posts(tx, [due], "wait")
        late = AttemptResult(attempts(engine, due)[1].claim_token, "done", None, "tt_late")
        attempts_store.finish_attempts(tx, [late])
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "done"), (3, "unknown")]
    time_passes(engine, due, days=3)
    assert (too_old(due), put_back(due)) == (False, ["closed"])
    assert next_try(engine, due) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id) == ("posted", "tt_late")
    assert len(fake_services.asked) == 3


def written_off(engine: Engine, post: str, monkeypatch: pytest.MonkeyPatch) -> Called:
    """A post that failed for want of an answer, and the caller that still waits for one."""
    monkeypatch.setenv("REDRAFT_TRIES_UNKNOWN", "1")
    settings.cache_clear()
    (called,) = publish.claim({post: 1}, Published())
    assert next_try(engine, post) == "failed"
    assert factories.row(engine, "posts", post).failure_reason == "publish_outcome_unknown"
    return called


def test_a_2xx_that_comes_after_its_post_has_failed_for_want_of_it_says_that_it_is_out(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    failed = factories.row(engine, "posts", due)
    answers = [Completed(called, Reply("done", {"platformPostId": "tt_late"}), time.monotonic())] * 2
    done = Published()
    assert finish(answers, done) == []
    assert done.outcomes == {due: "done"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, stored.revision) == ("posted", "tt_late", failed.revision + 1)
    assert (stored.failure_reason, stored.failure_class, stored.failure_message, stored.failed_at) == (None,) * 4
    assert late(called, Reply("done", {"platformPostId": "tt_late"})) == "done"
    assert factories.row(engine, "posts", due).revision == stored.revision
    assert fake_services.asked == []
    with db.transaction() as tx:
        (act,) = acts_store.of(tx, due, 5)
    assert act.before["failureReason"] == "publish_outcome_unknown"
    assert act.words() == (
        "found to be out by redraft, from an answer that came late; before: failed, publish_outcome_unknown"
    )


@pytest.mark.parametrize("reply", [UNKNOWN, BROKEN, REFUSED])
def test_no_other_late_answer_changes_a_post_that_has_failed(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    called = written_off(engine, due, monkeypatch)
    failed = factories.row(engine, "posts", due)
    assert late(called, reply) == "stale"
    assert factories.row(engine, "posts", due) == failed


def test_a_late_2xx_ends_a_post_that_an_operator_has_put_back_open(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    assert put_back(due, not_sent=True) == ["due"]
    change(engine, "posts", due, scheduled_time=factories.soon(120))
    assert late(called, Reply("done", {"platformPostId": "tt_late"})) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, fake_services.asked) == ("posted", "tt_late", [])


def test_a_claim_of_an_open_post_finds_the_2xx_that_is_on_record(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    assert put_back(due, not_sent=True) == ["due"]
    with db.autocommit() as tx:
        attempts_store.finish_attempt_alone(tx, AttemptResult(called.attempt.claim_token, "done", None, "tt_late"))
    assert next_try(engine, due) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, fake_services.asked) == ("posted", "tt_late", [])


def test_a_late_2xx_leaves_a_deleted_post_alone(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    change(engine, "posts", due, deleted_at=factories.soon())
    assert late(called, Reply("done", {})) == "stale"
    assert factories.row(engine, "posts", due).status == "failed"


OUT = Reply("done", {"platformPostId": "tt_late"})


def mistaken(engine: Engine, post: str, monkeypatch: pytest.MonkeyPatch) -> Called:
    """`written_off`; then an operator says that it did not go out, and it is edited: its next request has a new key."""
    called = written_off(engine, post, monkeypatch)
    assert put_back(post, not_sent=True) == ["due"]
    change(engine, "posts", post, caption="a better caption")
    return called


@pytest.mark.parametrize("second", [NEVER, REFUSED, UNKNOWN], ids=lambda reply: reply.kind)
def test_a_2xx_under_an_older_key_is_the_end_too(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch, second: Reply
) -> None:
    """An operator was wrong: the first request, said not to have gone out, is answered after the second."""
    called = mistaken(engine, due, monkeypatch)
    fake_services.replies = [second]
    next_try(engine, due)
    closed = factories.row(engine, "posts", due).claim_kind is not None
    assert late(called, OUT) == ("stale" if closed else "done")
    if closed:
        assert next_try(engine, due) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, len(fake_services.asked)) == ("posted", "tt_late", 1)


@pytest.mark.parametrize("second", [NEVER, REFUSED], ids=lambda reply: reply.kind)
def test_so_it_is_where_it_comes_while_the_next_request_is_under_way(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch, second: Reply
) -> None:
    called = mistaken(engine, due, monkeypatch)
    (again,) = publish.claim({due: 1}, Published())
    assert again.attempt.idempotency_key != called.attempt.idempotency_key
    assert late(called, OUT) == "stale"
    assert late(again, second) == "done"
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id) == ("posted", "tt_late")


def test_operators_read_that_a_post_may_be_out_while_a_2xx_under_an_older_key_is_on_record(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = mistaken(engine, due, monkeypatch)
    fake_services.replies = [REFUSED]
    assert next_try(engine, due) == "failed"
    recorded(called)
    with db.transaction() as tx:
        assert [one.maybe_sent for one in failed_posts.find(tx, ids=[due], limit=1)] == [True]
    assert put_back(due, not_sent=True) == ["closed"]


def recorded(called: Called) -> None:
    """The 2xx came while another session had the post locked, and its worker died before the lock was gone."""
    with db.autocommit() as tx:
        attempts_store.finish_attempt_alone(tx, AttemptResult(called.attempt.claim_token, "done", None, "tt_late"))


def test_a_post_that_waits_for_its_render_is_ended_by_a_late_2xx(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = written_off(engine, due, monkeypatch)
    put_back(due, not_sent=True)
    slides = {"content_type": "slides", "content_url": "sql:'[\"https://cdn.example.com/1.jpg\"]'::jsonb"}
    change(engine, "posts", due, status="pending_render", render_as_video=True, **slides)
    assert late(called, OUT) == "done"
    assert factories.row(engine, "posts", due).status == "posted"


def test_a_recorded_2xx_of_a_failed_post_is_found_hours_later_behind_many_newer_failures(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(written_off(engine, due, monkeypatch))
    change(engine, "posts", due, failed_at=factories.soon(-5 * 60))
    with engine.begin() as tx:
        for _ in range(1200):
            factories.post(tx, status="failed", failure_reason="publisher_unavailable", failed_at=factories.soon(-1))
    assert finish_unnoticed() == [due]
    assert factories.row(engine, "posts", due).status == "posted"
