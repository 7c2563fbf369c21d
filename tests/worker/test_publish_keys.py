"""How long a key is used: a publisher may forget it after a day, and would then publish a second time."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import KEY_TOO_OLD, Outcome, Past, Reply
from shared.settings import settings
from shared.store import acts as acts_store
from shared.store import db, failed_posts, failures
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store.acts import Actor
from shared.store.publish_attempts import AttemptResult
from tests import factories
from tests.worker.fake_services import (
    BROKEN,
    DONE,
    NEVER,
    UNKNOWN,
    FakeServices,
    attempts,
    change,
    due,
    expire,
    fake_services,
    publish_now,
    publish_rows,
)
from worker import publish
from worker.outbound.call_pool import Completed
from worker.published import Called, Published, finish, finish_unnoticed

__all__ = ["due", "fake_services"]

REFUSED = Reply("refused", message="no such account")
MAYBE = [
    UNKNOWN,
    BROKEN,
    Reply("not_now", message="slow down"),
    Reply("processing", message="at work"),
    Reply("misconfigured", message="the service answered 401"),
]


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


@pytest.mark.parametrize("reply", MAYBE, ids=lambda reply: reply.kind)
def test_a_request_begins_only_while_the_publisher_must_remember_the_key(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply
) -> None:
    fake_services.replies = [reply, UNKNOWN]
    assert next_try(engine, due) == reply.kind
    time_passes(engine, due, hours=22, minutes=59)
    assert next_try(engine, due) == "unknown"
    time_passes(engine, due, minutes=2)
    assert next_try(engine, due) == "failed"
    assert len(fake_services.asked) == 2
    stored = factories.row(engine, "posts", due)
    assert (stored.failure_reason, stored.failure_message) == ("publish_outcome_unknown", KEY_TOO_OLD)


def test_a_worker_that_died_days_ago_is_not_followed_by_another_request(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    assert len(publish.claim({due: 1}, Published())) == 1
    time_passes(engine, due, days=3)
    assert next_try(engine, due) == "failed"
    assert fake_services.asked == []
    assert publish_rows(engine, due) == [(1, "unknown")]


@pytest.mark.parametrize("reply", [NEVER, REFUSED], ids=lambda reply: reply.kind)
def test_a_key_under_which_nothing_can_have_gone_out_never_grows_too_old(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply
) -> None:
    fake_services.replies = [reply]
    next_try(engine, due)
    time_passes(engine, due, days=3)
    if reply is REFUSED:
        assert (too_old(due), put_back(due)) == (False, ["due"])
    assert next_try(engine, due) == "done"
    assert len({asked.key for asked in fake_services.asked}) == 1


def test_a_retry_days_later_puts_nothing_back_and_keeps_no_act(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    spent(engine, fake_services, due)
    before = factories.row(engine, "posts", due)
    time_passes(engine, due, days=3)
    assert (put_back(due), too_old(due)) == ([], True)
    assert factories.row(engine, "posts", due) == before
    assert [row.forgiven for row in attempts(engine, due)] == [False] * 3
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM acts")).scalar_one() == 0


def test_a_retry_makes_no_key_young_again(engine: Engine, fake_services: FakeServices, due: str) -> None:
    spent(engine, fake_services, due)
    time_passes(engine, due, hours=20)
    assert put_back(due) == ["closed"]
    fake_services.replies = [UNKNOWN]
    assert next_try(engine, due) == "unknown"
    time_passes(engine, due, hours=4)
    assert next_try(engine, due) == "failed"
    assert len(fake_services.asked) == 4
    assert put_back(due) == []


def test_an_operators_word_that_nothing_went_out_makes_a_new_key_where_the_old_one_is_old(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    spent(engine, fake_services, due)
    time_passes(engine, due, days=3)
    assert put_back(due, not_sent=True) == ["due"]
    fake_services.replies = [UNKNOWN, DONE]
    assert next_try(engine, due) == "unknown"
    time_passes(engine, due, hours=20)
    assert next_try(engine, due) == "done"
    first, *_, lost, repeat = (asked.key for asked in fake_services.asked)
    assert first != lost == repeat


def test_no_operators_word_makes_a_key_younger_than_the_publisher_has_it(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    spent(engine, fake_services, due)
    time_passes(engine, due, hours=20)
    assert put_back(due, not_sent=True) == ["due"]
    # The key is repeated, for the publisher still guards it. Then the answers are lost.
    spent(engine, fake_services, due)
    assert len({asked.key for asked in fake_services.asked}) == 1
    time_passes(engine, due, hours=5)
    assert (put_back(due), too_old(due)) == ([], True)


def test_a_claim_under_a_key_that_grew_old_since_an_operators_word_is_not_retaken(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    spent(engine, fake_services, due)
    time_passes(engine, due, hours=22, minutes=50)
    assert put_back(due, not_sent=True) == ["due"]
    fake_services.replies = [UNKNOWN]
    assert next_try(engine, due) == "unknown"
    time_passes(engine, due, minutes=20)
    asked = len(fake_services.asked)
    assert next_try(engine, due) == "failed"
    assert len(fake_services.asked) == asked


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


def test_a_post_that_was_open_although_it_may_have_gone_out_is_not_called_for_and_then_fails(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    """As a version left it that took a refusal for the end of all doubt."""
    fake_services.replies = [UNKNOWN]
    next_try(engine, due)
    change(engine, "posts", due, claim_kind=None, claim_token=None, claim_expires_at=None)
    time_passes(engine, due, days=3)
    assert next_try(engine, due) == "never_started"
    assert factories.row(engine, "posts", due).claim_kind == "publish"
    assert attempts(engine, due)[-1].message == KEY_TOO_OLD
    assert next_try(engine, due) == "failed"
    assert len(fake_services.asked) == 1


def test_a_call_that_would_begin_too_late_is_not_made_however_young_its_claim_was(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_CLAIM_EXPIRY", "600")
    settings.cache_clear()
    fake_services.replies = [UNKNOWN]
    next_try(engine, due)
    time_passes(engine, due, hours=22, minutes=58)
    expire(engine, due)
    (called,) = publish.claim({due: 1}, Published())
    late = Called(called.attempt, called.history, called.claimed_at, called.began - 240)
    assert publish._call(late) == Reply("never_started", message=KEY_TOO_OLD)
    assert publish._call(called) == DONE
    settings.cache_clear()


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


DAY = 86_400.0


@pytest.mark.parametrize(
    ("keeps", "age", "old"),
    [
        (DAY, 0, False),
        (DAY, DAY - 3601, False),
        (DAY, DAY - 3600, True),
        (DAY, 10 * DAY, True),
        (7200, 5999, False),
        (7200, 6000, True),
        (12, 9.9, False),
        (12, 10, True),
        (30 * DAY, 30 * DAY - 3601, False),
        (30 * DAY, 30 * DAY - 3600, True),
    ],
)
def test_a_key_is_too_old_an_hour_or_a_sixth_before_the_publisher_may_forget_it(
    keeps: float, age: float, *, old: bool
) -> None:
    now = factories.soon()
    first = now - timedelta(seconds=age)
    past = Past.of([(Outcome.NEVER_STARTED, first - timedelta(days=9)), (Outcome.UNKNOWN, first), (Outcome.DONE, now)])
    assert past.maybe_since == first
    for one in (past, past.forgiven()):
        assert one.key_too_old(now, keeps) is old
    assert past.forgiven(not_sent=True).key_too_old(now, keeps) is old
    assert not Past().key_too_old(now, keeps)


def written_off(engine: Engine, post: str, monkeypatch: pytest.MonkeyPatch) -> Called:
    """A post that failed for want of an answer, and the caller that still waits for one."""
    monkeypatch.setenv("REDRAFT_TRIES_UNKNOWN", "1")
    settings.cache_clear()
    (called,) = publish.claim({post: 1}, Published())
    assert next_try(engine, post) == "failed"
    assert factories.row(engine, "posts", post).failure_reason == "publish_outcome_unknown"
    return called


def late(called: Called, reply: Reply) -> str:
    done = Published()
    assert finish([Completed(called, reply, time.monotonic())], done) == []
    return done.outcomes[called.attempt.post_id]


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


@pytest.mark.parametrize("caption", ["as it went out", "edited since"])
def test_a_database_that_was_set_back_asks_under_the_key_that_it_forgot(
    engine: Engine, fake_services: FakeServices, due: str, caption: str
) -> None:
    change(engine, "posts", due, caption="as it went out")
    assert next_try(engine, due) == "done"
    with engine.begin() as tx:
        tx.execute(text("DELETE FROM publish_attempts WHERE post_id = :id"), {"id": due})
    change(engine, "posts", due, status="generated", posted_at=None, platform_post_id=None, caption=caption)
    assert next_try(engine, due) == "done"
    first, second = fake_services.asked
    assert second.key == first.key


def test_each_new_key_of_a_post_is_another_one(engine: Engine, fake_services: FakeServices, due: str) -> None:
    fake_services.replies = [NEVER] * 3
    for caption in ("one", "two", "one"):
        change(engine, "posts", due, caption=caption)
        next_try(engine, due)
    assert len({asked.key for asked in fake_services.asked}) == 3
