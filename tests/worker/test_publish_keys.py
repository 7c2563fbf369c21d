"""How long a key is used: a publisher may forget it after a day, and would then publish a second time."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import KEY_TOO_OLD, Outcome, Past, Reply
from shared.settings import settings
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
    publish_rows,
)
from tests.worker.later_tries import REFUSED, next_try, put_back, spent, time_passes, too_old
from worker import publish
from worker.published import Called, Published

__all__ = ["due", "fake_services"]

MAYBE = [
    UNKNOWN,
    BROKEN,
    Reply("not_now", message="slow down"),
    Reply("processing", message="at work"),
    Reply("misconfigured", message="the service answered 401"),
]


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
