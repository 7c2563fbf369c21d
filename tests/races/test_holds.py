"""Holds against claims, against each other and against resumes: real connections, and proof that the loser waited."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.errors import Unavailable
from shared.domain.holds import Level
from shared.domain.service_answers import Reply
from shared.store import claims as claims_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import scope_holds
from tests import factories, holding
from tests.races.test_claims import Pause, someone_waits_for_a_lock
from tests.worker.fake_services import DONE, FakeServices, attempts, fake_services, in_thread, publish_now, until
from worker import publish, schedule
from worker.follow_ups import SNOOZE, FollowUps, Publish
from worker.outbound.call_pool import CallPool
from worker.published import Published

__all__ = ["fake_services"]

WORKERS = 6


def someone_waits_for_the_holds(engine: Engine) -> bool:
    with engine.connect() as look:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :lock AND NOT granted"
        return bool(look.execute(text(waiting), {"lock": holds_store.LOCK}).scalar_one())


def test_a_hold_that_waits_for_a_claim_names_that_post_and_it_goes_out(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        later = factories.post(tx, scheduled_time=factories.soon(-5))
    pause = Pause(monkeypatch, claims_store, "take_claims")
    taken: list[scope_holds.Taken] = []
    answered = threading.Event()

    def answer(_: Any) -> Reply:
        assert answered.wait(10)
        return DONE

    fake_services.usual = answer
    with in_thread(lambda: publish_now((due, 1))):
        assert pause.reached.wait(10)
        with in_thread(lambda: taken.append(holding.hold_scope(engine))):
            until(lambda: someone_waits_for_the_holds(engine))
            assert not taken
            pause.go.set()
        answered.set()
    assert (taken[0].going_out, taken[0].going_out_total) == ([due], 1)
    assert publish_now((later, 1))[0] == {later: "held"}
    assert [asked.post["postId"] for asked in fake_services.asked] == [due]
    assert factories.row(engine, "posts", due).status == "posted"


def test_a_claim_that_meets_a_hold_under_way_comes_back_and_finds_it(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    with in_thread(lambda: holding.hold_scope(engine)):
        assert pause.reached.wait(10)
        done = Published()
        assert publish.claim({due: 1}, done) == []
        assert (done.outcomes, done.follow_ups.snoozes) == ({due: "contended"}, [(SNOOZE, Publish(due, 1))])
        pause.go.set()
    assert publish_now((due, 1))[0] == {due: "held"}
    assert fake_services.asked == []


def test_a_hold_of_a_post_waits_for_its_claim_and_the_post_goes_out(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, claims_store, "take_claims")
    with in_thread(lambda: publish_now((due, 1))):
        assert pause.reached.wait(10)
        with in_thread(lambda: holding.hold(engine, due)):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
    assert factories.row(engine, "posts", due).status == "posted"
    assert len(fake_services.asked) == 1


@pytest.mark.parametrize("level", list(Level))
def test_of_many_workers_that_claim_at_once_none_sends_a_post_that_the_answer_did_not_name(
    engine: Engine, fake_services: FakeServices, level: Level
) -> None:
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=factories.soon(-5)) for _ in range(60)]
    begun, over = threading.Event(), threading.Event()
    calls = CallPool(WORKERS)

    def work(number: int) -> None:
        mine = posts[number::WORKERS]
        while not over.is_set():
            outcomes = publish.publish([(post, 1) for post in mine[:3]], calls, FollowUps().add).outcomes
            begun.set()
            mine = mine[3:] if "contended" not in outcomes.values() else mine

    scope = holding.ACCOUNT if level is Level.ACCOUNT else holding.WORKSPACE
    with ThreadPoolExecutor(WORKERS) as workers:
        running = [workers.submit(work, number) for number in range(WORKERS)]
        try:
            assert begun.wait(10)
            with engine.begin() as tx:
                if level is Level.POST:
                    locked = posts_store.lock_posts(tx, posts, "wait")
                    holds_store.hold_posts(tx, locked.values(), holding.KIM, None)
                    named: set[str] = set()
                else:
                    named = set(scope_holds.take(tx, scope, holding.KIM, None).going_out)
                # Behind the lock, before the hold is committed: what a claim has by now, by the rows themselves.
                claimed = set(tx.execute(text("SELECT post_id FROM publish_attempts")).scalars())
            assert named <= claimed
            until(lambda: all(one.done() for one in running) or len(fake_services.asked) >= len(claimed))
        finally:
            over.set()
        for one in running:
            one.result()
    assert {asked.post["postId"] for asked in fake_services.asked} == claimed
    assert len(claimed) < len(posts)
    rest = [post for post in posts if post not in claimed]
    assert set(publish_now(*((post, 1) for post in rest))[0].values()) == {"held"}


def test_two_holds_at_once_are_one_hold_and_the_second_waits(
    engine: Engine, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    taken: list[scope_holds.Taken] = []
    with in_thread(lambda: taken.append(holding.hold_scope(engine, reason="first"))):
        assert pause.reached.wait(10)
        with in_thread(lambda: taken.append(holding.hold_scope(engine, reason="second"))):
            until(lambda: someone_waits_for_the_holds(engine))
            pause.go.set()
    first, second = sorted(taken, key=lambda one: one.hold.reason or "")
    assert (first.hold.since, first.hold.by) == (second.hold.since, second.hold.by)
    with engine.connect() as tx:
        assert tx.execute(text("SELECT reason FROM holds")).scalars().all() == ["second"]
        assert tx.execute(text("SELECT from_state FROM acts ORDER BY id")).scalars().all() == ["not held", "held"]


def test_a_claim_that_meets_the_end_of_a_hold_waits_for_it_and_finds_the_post_missed(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.hold_scope(engine)
    pause = Pause(monkeypatch, scope_holds, "_act", lists=2)
    with in_thread(lambda: holding.resume_scope(engine)):
        assert pause.reached.wait(10)
        assert publish_now((due, 1))[0] == {due: "contended"}
        pause.go.set()
    assert holding.missed(engine, due)
    assert publish_now((due, 1))[0] == {due: "held"}
    assert fake_services.asked == []
    assert attempts(engine, due) == []


def test_a_resume_that_publishes_is_not_undone_by_a_look_for_missed_posts(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.hold_scope(engine)
    pause = Pause(monkeypatch, holds_store, "miss")
    steps: list[scope_holds.Step] = []
    with in_thread(schedule.mark_missed):
        assert pause.reached.wait(10)
        with in_thread(lambda: steps.append(holding.resume_scope(engine, publish=True))):
            until(lambda: someone_waits_for_the_holds(engine))
            pause.go.set()
    assert [step.released for step in steps] == [1]
    assert not holding.missed(engine, due)
    assert publish_now((due, 1))[0] == {due: "done"}


@pytest.mark.parametrize("let_go", [False, True])
def test_a_resume_keeps_out_no_claims_while_it_waits_for_a_locked_overdue_post(
    engine: Engine, fake_services: FakeServices, due: str, *, let_go: bool
) -> None:
    with engine.begin() as tx:
        others = [
            factories.post(tx, account_id=factories.INSTAGRAM, scheduled_time=factories.soon(-5)) for _ in range(9)
        ]
    holding.hold_scope(engine)
    sent: list[dict[str, str]] = []
    with engine.connect() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": due})

        def meanwhile(_: float) -> None:
            sent.append(publish_now((others.pop(), 1))[0])
            assert publish_now((due, 1))[0] != {due: "done"}
            if let_go:
                person.rollback()

        if let_go:
            assert holding.resume_scope(engine, pause=meanwhile).missed == 1
        else:
            with pytest.raises(Unavailable, match=f"Post {due} is locked.*the hold stands"):
                holding.resume_scope(engine, pause=meanwhile)
    assert [list(outcome.values()) for outcome in sent] == [["done"]] * (1 if let_go else scope_holds.TRIES - 1)
    assert holding.missed(engine, due) is let_go
    assert publish_now((due, 1))[0] == {due: "held"}
    assert holding.resume_scope(engine).missed == (0 if let_go else 1)
    assert publish_now((due, 1))[0] == {due: "held"}


def test_of_many_missed_posts_those_that_are_locked_come_last_and_are_passed_over(
    engine: Engine, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope_holds, "TOGETHER", 2)
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=factories.soon(-5)) for _ in range(9)]
    holding.hold_scope(engine)
    schedule.mark_missed()
    pauses: list[float] = []
    with engine.connect() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": posts[:5]})
        step = holding.resume_scope(engine, publish=True, pause=pauses.append)
    assert (step.released, step.missed, len(pauses)) == (5, 5, scope_holds.ROUNDS - 1)
    assert [holding.missed(engine, post) for post in posts] == [True] * 5 + [False] * 4
    assert holding.resume_scope(engine, publish=True).released == 5
