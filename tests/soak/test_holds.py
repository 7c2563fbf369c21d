"""The judge of holds sees what went out while it was held and what went out in a burst, and nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests import factories
from tests.soak.holds import Period, Release, judge

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=10)


def tried(engine: Engine, at: float, *, goes: float = 5.0, number: int = 1) -> str:
    """A post that was tried so many seconds after BEGAN; its time was `goes` seconds after it."""
    body = f'{{"post": {{"scheduledTime": "{(BEGAN + timedelta(seconds=goes)).isoformat()}"}}}}'
    with engine.begin() as tx:
        post = factories.post(tx)
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, started_at) VALUES (:post, 1, 'pub_1', :body, :number, :token, :at)"""),
            {"post": post, "body": body, "number": number, "token": post, "at": BEGAN + timedelta(seconds=at)},
        )
    return post


def period(**given: Any) -> Period:
    usual: dict[str, Any] = {"level": "account", "subject": factories.TIKTOK, "named": frozenset(), "published": False}
    return Period(began=BEGAN, ended=ENDED, **(usual | given))


def found(
    engine: Engine, *periods: Period, releases: Sequence[Release] = (), calmed: datetime | None = None
) -> list[tuple[str, str]]:
    return [(one.kind, one.post_id) for one in judge(engine, periods, releases, calmed)]


def test_a_try_under_a_hold_is_seen_unless_the_answer_named_its_post(engine: Engine) -> None:
    tried(engine, -1)
    post = tried(engine, 5)
    assert found(engine, period()) == [("held", post)]
    assert found(engine, period(level="workspace", subject=factories.WORKSPACE)) == [("held", post)]
    assert found(engine, period(level="post", subject=post)) == [("held", post)]
    assert found(engine, period(named=frozenset({post}))) == []
    assert found(engine, period(subject=factories.INSTAGRAM)) == []


def test_a_post_that_missed_its_time_and_goes_out_after_the_resume_is_seen(engine: Engine) -> None:
    post = tried(engine, 11)
    assert found(engine, period()) == [("burst", post)]
    assert found(engine, period(published=True)) == []
    assert found(engine, period(), calmed=ENDED) == []


@pytest.mark.parametrize(("sent", "kinds"), [(10.5, []), (5, []), (None, []), (-1, ["burst"]), (12, ["burst"])])
def test_another_resume_may_let_it_go_from_the_moment_at_which_it_was_sent(
    engine: Engine, sent: float | None, kinds: list[str]
) -> None:
    """Red before: the judge took no resume for one whose moment the database could not tell."""
    post = tried(engine, 11)
    release = Release(post, None if sent is None else BEGAN + timedelta(seconds=sent))
    assert [kind for kind, _ in found(engine, period(), releases=[release])] == kinds
    assert found(engine, period(), releases=[release._replace(subject="another")]) == [("burst", post)]


def test_a_post_whose_time_came_later_and_one_that_an_edit_moved_are_no_burst(engine: Engine) -> None:
    tried(engine, 16, goes=15)
    tried(engine, 11, number=2)
    post = tried(engine, 11)
    with engine.begin() as tx:
        edit = factories.edit(tx, post, {"caption": "x"})
        tx.execute(
            text("UPDATE edits SET status = 'applied', revision = 2, finalized_at = :at WHERE id = :id"),
            {"at": ENDED + timedelta(seconds=0.5), "id": edit},
        )
    assert found(engine, period()) == []
