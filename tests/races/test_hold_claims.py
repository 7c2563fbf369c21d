"""A hold while thousands of posts are claimed, at the moment at which a claim is given back or taken over, and beside
the claims of an older version.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared.store import claims as claims_store
from shared.store import db, scope_holds
from tests import factories, holding
from tests.races.test_claims import Pause, someone_waits_for_a_lock
from tests.races.test_holds import WORKERS, someone_waits_for_the_holds
from tests.worker.fake_services import (
    NEVER,
    UNKNOWN,
    FakeServices,
    attempts,
    change,
    expire,
    fake_services,
    in_thread,
    publish_now,
    until,
)
from worker import publish
from worker.published import Published

__all__ = ["fake_services"]

MANY = 3000
BATCH = 20


def many(engine: Engine, post: str) -> list[str]:
    """MANY posts like this one."""
    like = """
        INSERT INTO posts SELECT (jsonb_populate_record(p, jsonb_build_object('id', p.id || '_' || n))).*
        FROM posts p, generate_series(1, :many) n WHERE p.id = :id RETURNING id"""
    with engine.begin() as tx:
        return list(tx.execute(text(like), {"id": post, "many": MANY}).scalars())


def claimed(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM posts WHERE claim_kind = 'publish'")).scalar_one())


def test_a_hold_that_comes_while_thousands_are_claimed_gets_its_lock_and_counts_each(engine: Engine, due: str) -> None:
    posts = many(engine, due)
    begun = threading.Event()

    def work(number: int) -> set[str]:
        mine, outcomes = posts[number::WORKERS], set[str]()
        while mine and "held" not in outcomes:
            done = Published()
            publish.claim(dict.fromkeys(mine[:BATCH], 1), done)
            outcomes = set(done.outcomes.values())
            mine = mine if "contended" in outcomes else mine[BATCH:]
            begun.set()
        return outcomes

    with ThreadPoolExecutor(WORKERS) as workers:
        running = [workers.submit(work, number) for number in range(WORKERS)]
        assert begun.wait(10)
        taken = holding.hold_scope(engine)
        at_the_answer = claimed(engine)
        last = [one.result() for one in running]
    assert all("held" in outcomes for outcomes in last), last
    assert 0 < at_the_answer < MANY
    # None was claimed behind the answer, and the answer counts all that were claimed before.
    assert claimed(engine) == at_the_answer == taken.going_out_total
    assert len(taken.going_out) == min(at_the_answer, scope_holds.NAMED_AT_MOST)


@pytest.mark.parametrize("scope", [None, holding.ACCOUNT, holding.WORKSPACE], ids=["post", "account", "workspace"])
def test_a_hold_at_the_moment_of_a_give_back_keeps_the_post_that_came_back(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch, scope: Any
) -> None:
    fake_services.replies = [NEVER]
    pause = Pause(monkeypatch, claims_store, "finish_publishes")
    with in_thread(lambda: publish_now((due, 1))):
        assert pause.reached.wait(10)
        if scope is None:
            with in_thread(lambda: holding.hold(engine, due)):
                until(lambda: someone_waits_for_a_lock(engine))
                pause.go.set()
        else:
            # It waits for claims alone. The post was claimed at its answer, so it is named.
            assert holding.hold_scope(engine, scope).going_out == [due]
            pause.go.set()
    assert factories.row(engine, "posts", due).claim_kind is None
    change(engine, "posts", due, retry_at="sql:clock_timestamp() - interval '1 second'")
    assert publish_now((due, 1))[0] == {due: "held"}
    assert len(fake_services.asked) == 1


def test_a_claim_that_rescue_takes_over_meets_a_hold_under_way_is_named_and_goes_on(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_services.replies = [UNKNOWN]
    publish_now((due, 1))
    expire(engine, due)
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    taken: list[scope_holds.Taken] = []
    with in_thread(lambda: taken.append(holding.hold_scope(engine))):
        assert pause.reached.wait(10)
        assert publish_now((due, 1))[0] == {due: "contended"}
        pause.go.set()
    assert taken[0].going_out == [due]
    assert publish_now((due, 1))[0] == {due: "done"}
    assert [one.try_number for one in attempts(engine, due)] == [1, 2]


def older_claim(tx: Connection, post: str) -> None:
    """As code claims that knows no holds: the post's row lock first, and no look at what holds it."""
    tx.execute(text("SELECT id FROM posts WHERE id = :id FOR NO KEY UPDATE"), {"id": post})
    tx.execute(
        text("""
            UPDATE posts SET claim_kind = 'publish', claim_token = 'clm_older',
                claim_expires_at = now() + interval '1 minute'
            WHERE id = :id"""),
        {"id": post},
    )


def test_a_hold_waits_for_a_claim_of_older_code_and_names_its_post(engine: Engine, due: str) -> None:
    taken: list[scope_holds.Taken] = []
    with engine.connect() as older:
        older_claim(older, due)
        with in_thread(lambda: taken.append(holding.hold_scope(engine))):
            until(lambda: someone_waits_for_the_holds(engine))
            assert not taken
            older.commit()
    assert taken[0].going_out == [due]


def test_a_claim_of_older_code_waits_for_a_hold_under_way_and_is_refused(
    engine: Engine, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    refused: list[DBAPIError] = []

    def claim() -> None:
        try:
            with engine.begin() as older:
                older_claim(older, due)
        except DBAPIError as error:
            refused.append(error)

    with in_thread(lambda: holding.hold_scope(engine)):
        assert pause.reached.wait(10)
        with in_thread(claim):
            until(lambda: someone_waits_for_the_holds(engine))
            pause.go.set()
    assert "is held: no publish claims it" in str(refused[0])
    # To older code this is a locked row, for which it comes back.
    assert db.lock_timed_out(refused[0])
    assert factories.row(engine, "posts", due).claim_kind is None


def test_a_resume_waits_for_no_older_claim_that_waits_for_it(
    engine: Engine, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.hold_scope(engine)
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    outcomes: list[str] = []

    def claim() -> None:
        try:
            with engine.begin() as older:
                older_claim(older, due)
                outcomes.append("claimed")
        except DBAPIError as error:
            outcomes.append("locked" if db.lock_timed_out(error) else "other")

    steps: list[scope_holds.Step] = []
    with in_thread(lambda: steps.append(holding.resume_scope(engine))):
        assert pause.reached.wait(10)
        with in_thread(claim):
            until(lambda: someone_waits_for_the_holds(engine) or bool(outcomes))
            pause.go.set()
    assert steps[0].missed == 1
    assert outcomes == ["locked"]
    assert holding.missed(engine, due)
