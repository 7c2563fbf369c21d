"""What the publisher's answers do to posts, with the runs in which a post once went out twice or was given up."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from shared.domain.service_answers import Outcome, Past, Reply
from shared.store import db, gauges, health
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store.acts import Actor
from shared.store.failures import retry
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
from worker import apply, publish
from worker.published import Published

__all__ = ["due", "fake_services"]

BUSY = Reply("not_now", message="the first request is still under way", retry_after=7)
AT_WORK = Reply("processing", message="the service is still at work")
SET_UP_WRONGLY = Reply("misconfigured", message="the service answered 401")
REFUSED = Reply("refused", message="caption too long")


def next_try(engine: Engine, post: str) -> dict[str, str]:
    """The next try as soon as it is due."""
    if factories.row(engine, "posts", post).claim_kind:
        expire(engine, post)
    return publish_now((post, 1))[0]


def edited(engine: Engine, post: str) -> str:
    """How an edit of its caption ends."""
    with engine.begin() as tx:
        edit = factories.edit(tx, post, {"caption": "another"})
    apply.apply_edits([post])
    ended = factories.row(engine, "edits", edit)
    return ended.error_details[0]["message"] if ended.status == "rejected" else str(ended.status)


def put_back(post: str, *, not_sent: bool = False) -> str:
    with db.transaction() as tx:
        (one,) = retry(tx, posts_store.lock_posts(tx, [post], "wait").values(), Actor("kim"), not_sent=not_sent)
    return one.back


def one_key(fake_services: FakeServices) -> bool:
    return len({(asked.key, asked.body) for asked in fake_services.asked}) == 1


def test_a_repeat_that_meets_the_first_still_under_way_is_not_the_end_and_never_a_second_effect(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN, BUSY, DONE]
    assert next_try(engine, due) == {due: "unknown"}
    assert next_try(engine, due) == {due: "not_now"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind) == ("generated", "publish")
    assert timedelta(seconds=6) < stored.claim_expires_at - datetime.now(UTC) < timedelta(seconds=8)
    assert edited(engine, due) == "being published"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "not_now"), (3, "done")]


def test_one_429_fails_nothing_and_uses_up_no_try(engine: Engine, fake_services: FakeServices, due: str) -> None:
    fake_services.replies = [BUSY, *[BROKEN] * 9, BUSY, DONE]
    outcomes = [next_try(engine, due)[due] for _ in range(12)]
    assert outcomes == ["not_now", *["server_error"] * 9, "not_now", "done"]
    assert one_key(fake_services)


def test_a_publisher_that_refuses_everybody_fails_nothing_early_and_keeps_every_post_closed(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.usual = SET_UP_WRONGLY
    with engine.begin() as tx:
        other = factories.post(tx, scheduled_time=factories.soon(-5))
    for number in range(1, 11):
        for post in (due, other):
            assert next_try(engine, post) == {post: "misconfigured" if number < 10 else "failed"}
        with engine.begin() as tx:
            answered = {label: value for _, label, value in gauges.read(tx, "answers", 1.0, 60.0)}
            seen = health.set_up_wrongly(health.publisher_answers(tx))
        assert answered["misconfigured"] == (2 if number < 10 else 0)
        assert seen == ((2, "the service answered 401") if number < 10 else (0, ""))
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.failure_reason) == ("failed", "publisher_unavailable")
    assert attempts(engine, due)[-1].message == "the service answered 401"
    assert put_back(due) == "closed"
    fake_services.usual = DONE
    assert next_try(engine, due) == {due: "done"}
    assert len({asked.key for asked in fake_services.asked if asked.post["postId"] == due}) == 1


@pytest.mark.parametrize(
    ("replies", "kept"),
    [
        ([REFUSED], ("refused", "caption too long")),
        ([Reply("refused", message="publish_outcome_unknown")], ("refused", "publish_outcome_unknown")),
        ([SET_UP_WRONGLY] * 10, ("misconfigured", "the service answered 401")),
        ([*[SET_UP_WRONGLY] * 9, BROKEN], ("unavailable", "503")),
        ([NEVER] * 10, ("unavailable", "connection refused")),
        ([UNKNOWN] * 3, ("unknown", "timed out")),
        ([UNKNOWN, REFUSED], ("unknown", "caption too long")),
        ([UNKNOWN, *[SET_UP_WRONGLY] * 10], ("unknown", "the service answered 401")),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, tuple) else "",
)
def test_a_post_that_fails_keeps_the_class_and_the_last_words(
    engine: Engine, fake_services: FakeServices, due: str, replies: list[Reply], kept: tuple[str, str]
) -> None:
    fake_services.replies = list(replies)
    for _ in replies:
        change(engine, "posts", due, retry_at=None)
        next_try(engine, due)
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.failure_class, stored.failure_message) == ("failed", *kept)


def test_a_post_whose_workers_all_died_is_of_unknown_outcome(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN] * 2
    next_try(engine, due)
    next_try(engine, due)
    expire(engine, due)
    publish.claim({due: 1}, Published())
    assert next_try(engine, due) == {due: "failed"}
    stored = factories.row(engine, "posts", due)
    assert (stored.failure_class, stored.failure_message) == ("unknown", "its worker was gone")


def test_a_publisher_at_work_is_asked_again_with_the_same_bytes_and_the_post_stays_closed(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [AT_WORK] * 20
    for _ in range(20):
        assert next_try(engine, due) == {due: "processing"}
    left = factories.row(engine, "posts", due).claim_expires_at - datetime.now(UTC)
    assert timedelta(seconds=9) < left <= timedelta(seconds=11)
    assert edited(engine, due) == "being published"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)
    assert [asked.attempt for asked in fake_services.asked] == list(range(1, 22))


def test_a_publisher_at_work_for_an_hour_leaves_the_outcome_unknown(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [AT_WORK, AT_WORK]
    next_try(engine, due)
    change(engine, "publish_attempts", str(attempts(engine, due)[0].id), started_at="sql:now() - interval '1 hour'")
    assert next_try(engine, due) == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"


def test_a_refusal_of_a_repeat_says_nothing_of_the_first_try(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN, REFUSED, REFUSED]
    next_try(engine, due)
    assert next_try(engine, due) == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"
    assert attempts(engine, due)[-1].message == "caption too long"
    assert put_back(due) == "closed"
    assert edited(engine, due) == "being published"
    assert next_try(engine, due) == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"
    assert put_back(due) == "closed"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)


@pytest.mark.parametrize("reply", [UNKNOWN, BROKEN, BUSY, AT_WORK, SET_UP_WRONGLY], ids=lambda reply: reply.kind)
def test_the_words_of_a_refusal_never_become_the_reason_of_a_post_that_may_have_gone_out(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply
) -> None:
    fake_services.replies = [reply, REFUSED, REFUSED]
    assert next_try(engine, due) == {due: reply.kind}
    for _ in range(2):
        assert next_try(engine, due) == {due: "failed"}
        assert factories.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"
        assert attempts(engine, due)[-1].message == "caption too long"
        assert put_back(due) == "closed"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)


@pytest.mark.parametrize("reply", [UNKNOWN, BROKEN, BUSY, AT_WORK, SET_UP_WRONGLY], ids=lambda reply: reply.kind)
def test_whatever_may_have_been_sent_keeps_its_key_through_refusals_retries_and_refused_connections(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply
) -> None:
    fake_services.replies = [NEVER, reply, NEVER, REFUSED, NEVER, DONE]
    change(engine, "posts", due, retry_at=None)
    assert next_try(engine, due) == {due: "never_started"}
    change(engine, "posts", due, retry_at=None)
    assert [next_try(engine, due)[due] for _ in range(3)] == [reply.kind, "never_started", "failed"]
    assert put_back(due) == "closed"
    assert next_try(engine, due) == {due: "never_started"}
    assert edited(engine, due) == "being published"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)


def test_what_the_publisher_last_said_of_posts_under_way_is_counted(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    for reply in (BUSY, AT_WORK, BROKEN, UNKNOWN, NEVER):
        fake_services.replies = [reply]
        next_try(engine, due)
        with engine.begin() as tx:
            read = gauges.read(tx, "answers", 1.0, 60.0)
            answered = {label: value for name, label, value in read if value and name == "redraft_publishes_answered"}
        assert answered == ({reply.kind: 1.0} if reply is not NEVER else {})


def test_only_an_operators_word_opens_a_post_that_may_have_gone_out(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN, REFUSED, NEVER, REFUSED, DONE]
    next_try(engine, due)
    next_try(engine, due)
    assert put_back(due, not_sent=True) == "due"
    assert next_try(engine, due) == {due: "never_started"}
    assert edited(engine, due) == "applied"
    change(engine, "posts", due, retry_at=None)
    assert next_try(engine, due) == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "caption too long"
    keys = [asked.key for asked in fake_services.asked]
    # As long as the body stayed it was sent under the old key: the publisher knows it, should the word be wrong.
    assert keys[0] == keys[2] != keys[3]


def test_a_post_that_somebody_opened_although_it_may_have_gone_out_keeps_key_and_body(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    """As a version did that took a refusal for the end of all doubt."""
    fake_services.replies = [UNKNOWN]
    next_try(engine, due)
    change(engine, "posts", due, claim_kind=None, claim_token=None, claim_expires_at=None)
    assert edited(engine, due) == "applied"
    assert next_try(engine, due) == {due: "done"}
    assert one_key(fake_services)


KINDS = [None, *Outcome]


def test_rows_tell_of_tries_what_the_pure_rule_tells(engine: Engine) -> None:
    rng = random.Random(20)
    for number in range(60):
        tries = [rng.choice(KINDS) for _ in range(rng.randint(1, 8))]
        forgiven = rng.randint(0, len(tries))
        not_sent = rng.random() < 0.5
        with engine.begin() as tx:
            post = factories.post(tx)
            for place, outcome in enumerate(tries):
                tx.execute(
                    text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                                claim_token, started_at, finished_at, outcome, forgiven, not_sent, platform_post_id)
                            VALUES (:post, 1, 'pub_1', '{}', :number, :token, :at, :ended, :outcome, :forgiven,
                                :not_sent, :platform_post_id)"""),
                    {
                        "post": post,
                        "number": place + 1,
                        "token": f"{post}_{place}",
                        "at": at(place),
                        "ended": at(place) if outcome else None,
                        "outcome": outcome and outcome.value,
                        "platform_post_id": "tt_1" if outcome is Outcome.DONE else None,
                        "forgiven": place < forgiven,
                        "not_sent": place < forgiven and not_sent,
                    },
                )
        with engine.begin() as tx:
            read = attempts_store.histories(tx, [post])[post]
        expected = Past()
        for place, outcome in enumerate(tries):
            if place == forgiven and forgiven:
                expected = expected.forgiven(not_sent=not_sent)
            platform_post_id = "tt_1" if outcome is Outcome.DONE else None
            expected = expected.with_try(outcome or Outcome.UNKNOWN, at(place), platform_post_id)
        if forgiven == len(tries):
            expected = expected.forgiven(not_sent=not_sent)
        assert read.past == expected, (number, tries, forgiven, not_sent)
        assert read.tries == len(tries)


def at(minutes: int) -> datetime:
    return datetime(2026, 3, 1, 12, minutes, tzinfo=UTC)


@contextmanager
def commit_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The claim's transaction commits, and then its connection is lost: what a restart of PostgreSQL does."""
    real = db.transaction

    @contextmanager
    def losing(*on: Any) -> Iterator[Any]:
        with real(*on) as tx:
            yield tx
            claimed = tx.execute(text("SELECT count(*) FROM posts WHERE claim_expires_at > now()")).scalar_one()
        if claimed:
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "transaction", losing)
        yield


def test_a_claim_whose_commit_was_not_confirmed_is_no_unknown_try(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        with commit_without_an_answer(monkeypatch), pytest.raises(OperationalError):
            publish_now((due, 1))
        stored = factories.row(engine, "posts", due)
        assert (stored.status, stored.claim_kind) == ("generated", None)
        change(engine, "posts", due, retry_at=None)
    assert fake_services.asked == []
    assert publish_rows(engine, due) == [(number, "never_started") for number in range(1, 5)]
    assert edited(engine, due) == "applied"
    assert publish_now((due, 1))[0] == {due: "done"}
    assert len(fake_services.asked) == 1


def test_a_repeat_whose_claims_commit_was_not_confirmed_keeps_the_post_closed(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_services.replies = [UNKNOWN]
    publish_now((due, 1))
    expire(engine, due)
    with commit_without_an_answer(monkeypatch), pytest.raises(OperationalError):
        publish_now((due, 1))
    assert factories.row(engine, "posts", due).claim_kind == "publish"
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "never_started")]


def test_a_claim_that_was_rolled_back_leaves_nothing(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("lost"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(attempts_store, "record_attempts", broken)
        with pytest.raises(OperationalError):
            publish_now((due, 1))
    assert attempts(engine, due) == []
    assert publish_now((due, 1))[0] == {due: "done"}
