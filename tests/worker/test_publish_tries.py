"""The tries of a publish: claims that are retaken, keys and bodies, backoffs, and outcomes."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from shared.domain import posts
from shared.domain.service_answers import Reply
from tests import factories
from tests.worker.fake_services import (
    BROKEN,
    NEVER,
    UNKNOWN,
    FakeServices,
    at,
    attempts,
    change,
    due,
    expire,
    fake_services,
    old_edit,
    publish_now,
    publish_rows,
)
from worker import apply, publish
from worker.published import Published

__all__ = ["due", "fake_services"]


def test_an_expired_claim_is_retaken_with_the_same_key_and_the_byte_identical_body(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lost,) = publish.claim({due: 1}, Published())
    expire(engine, due)
    # A newer version of ours might build another body out of the same row: what may have been sent is sent again.
    monkeypatch.setattr(posts, "service_body", lambda *_: '{"another": "body"}')
    assert publish_now((due, 1))[0] == {due: "done"}
    (asked,) = fake_services.asked
    assert (asked.key, asked.body, asked.attempt) == (lost.attempt.idempotency_key, lost.attempt.body, 2)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "done")]
    assert attempts(engine, due)[0].message == "its worker was gone"


def test_an_edit_is_refused_while_an_expired_claim_waits_to_be_retaken(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    publish.claim({due: 1}, Published())
    expire(engine, due)
    with engine.begin() as tx:
        edit = factories.edit(tx, due, {"caption": "too late"})
    assert publish_now((due, 1))[0] == {due: "done"}
    apply.apply_edits([due])
    ended = factories.row(engine, "edits", edit)
    assert (ended.status, ended.error_details[0]["message"]) == ("rejected", "being published")
    assert fake_services.asked[0].post["caption"] == "first"


def test_a_claim_whose_holders_die_every_time_is_given_up_as_unknown(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    for _ in range(3):
        assert len(publish.claim({due: 1}, Published())) == 1
        expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "failed"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.failure_reason, stored.claim_kind) == ("failed", "publish_outcome_unknown", None)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "unknown"), (3, "unknown")]
    assert fake_services.asked == []


def test_a_call_that_never_started_gives_the_post_back_for_edits_and_keeps_its_key(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [NEVER]
    assert publish_now((due, 1))[0] == {due: "never_started"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind, stored.enqueued_revision) == ("generated", None, None)
    assert stored.retry_at > datetime.now(UTC)
    assert publish_now((due, 1))[0] == {due: "not_due"}
    change(engine, "posts", due, retry_at="sql:now()")
    assert publish_now((due, 1))[0] == {due: "done"}
    first, second = fake_services.asked
    assert (first.key, first.body) == (second.key, second.body)
    assert (first.attempt, second.attempt) == (1, 2)


def test_only_an_edit_that_changes_the_body_makes_a_new_key(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [NEVER, NEVER]
    publish_now((due, 1))
    for caption in ("first", "second"):
        with engine.begin() as tx:
            factories.edit(tx, due, {"caption": caption})
        change(engine, "posts", due, retry_at="sql:now()")
        publish_now((due, 1))
    keys = [asked.key for asked in fake_services.asked]
    assert keys[0] == keys[1] != keys[2]
    assert [asked.attempt for asked in fake_services.asked] == [1, 2, 1]


def test_a_caption_edit_does_not_cut_the_wait_for_the_next_try_short_but_a_move_does(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [NEVER]
    publish_now((due, 1))
    with engine.begin() as tx:
        factories.edit(tx, due, {"caption": "second"})
    assert publish_now((due, 1))[0] == {due: "not_due"}
    with engine.begin() as tx:
        old_edit(tx, due, at(-9))
    assert publish_now((due, 1))[0] == {due: "done"}


def test_a_connection_refused_after_a_try_that_may_have_been_sent_does_not_open_the_post(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN, NEVER]
    publish_now((due, 1))
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "never_started"}
    stored = factories.row(engine, "posts", due)
    assert (stored.claim_kind, stored.retry_at) == ("publish", None)
    expire(engine, due)
    publish_now((due, 1))
    assert len({(asked.key, asked.body) for asked in fake_services.asked}) == 1


@pytest.mark.parametrize("reply", [BROKEN, UNKNOWN])
def test_a_call_that_may_have_been_sent_keeps_the_post_closed_until_its_next_try(
    engine: Engine, fake_services: FakeServices, due: str, reply: Reply
) -> None:
    fake_services.replies = [reply]
    outcomes, rung = publish_now((due, 1))
    assert outcomes == {due: reply.kind}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind) == ("generated", "publish")
    assert datetime.now(UTC) < stored.claim_expires_at < datetime.now(UTC) + timedelta(seconds=3)
    assert rung.publishes == [(due, 1, stored.claim_expires_at)]
    with engine.begin() as tx:
        edit = factories.edit(tx, due, {"caption": "too late"})
    apply.apply_edits([due])
    assert factories.row(engine, "edits", edit).error_details[0]["message"] == "being published"
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert len({(asked.key, asked.body) for asked in fake_services.asked}) == 1


def test_a_refusal_fails_the_post_with_its_words(engine: Engine, fake_services: FakeServices, due: str) -> None:
    fake_services.replies = [Reply("refused", message="the account is suspended")]
    assert publish_now((due, 1))[0] == {due: "failed"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.failure_reason, stored.revision) == ("failed", "the account is suspended", 2)
    assert publish_rows(engine, due) == [(1, "refused")]


def test_ten_tries_that_the_publisher_does_not_take_are_enough(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.usual = BROKEN
    for _ in range(10):
        outcomes, _ = publish_now((due, 1))
        if factories.row(engine, "posts", due).claim_kind:
            expire(engine, due)
    assert outcomes == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "publisher_unavailable"
    assert [asked.attempt for asked in fake_services.asked] == list(range(1, 11))
    assert len({(asked.key, asked.body) for asked in fake_services.asked}) == 1


def test_three_unknown_outcomes_are_enough(engine: Engine, fake_services: FakeServices, due: str) -> None:
    fake_services.usual = UNKNOWN
    for _ in range(3):
        outcomes, _ = publish_now((due, 1))
        if factories.row(engine, "posts", due).claim_kind:
            expire(engine, due)
    assert outcomes == {due: "failed"}
    assert factories.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"
    assert len(fake_services.asked) == 3
