"""The model repeats what statements do: random histories run through both, and are compared step by step."""

import random
import time
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from api import deletion
from shared.domain.service_answers import Outcome, Past, Reply
from shared.store import failures
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store.acts import Actor
from tests import factories, holding
from tests.model.publishing import CAPTION, CAPTION_BACK, LIMITS, QUARTER, Holder, State, first, steps
from worker import apply, publish, published
from worker.outbound.call_pool import Completed
from worker.published import Called, Published

SEED, STORIES, LONG = 22, 24, 18
WEIGHTS = {
    "time passes until": 0.5,
    "a worker finds the post locked": 9,
    "a call ends done": 1,
    "a call": 0.4,
    "a worker": 6,
    "a claim": 9,
    "time": 8,
    "an edit": 0.7,
    "it is deleted": 0.2,
    "it is held": 0.5,
}


class Lived:
    """The same story in rows: what a step of the model is in the product."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.begin() as tx:
            self.post = factories.post(tx, scheduled_time=factories.soon(-5))
        self.called: dict[str, Called] = {}
        self.keys: dict[str, str] = {}

    def step(self, label: str, before: State, after: State) -> None:
        match label.removesuffix(", one is dead"):
            case "a worker claims":
                (called,) = publish.claim({self.post: 1}, Published())
                attempt = after.holders[-1].attempt
                self.called[attempt.claim_token] = called
                assert self.keys.setdefault(attempt.idempotency_key, called.attempt.idempotency_key) == (
                    called.attempt.idempotency_key
                )
                assert called.attempt.try_number == attempt.try_number
            case "a claim gives up" | "a claim finds the 2xx":
                assert publish.claim({self.post: 1}, Published()) == []
            case "a worker finds the post locked, and keeps the answer":
                with self.engine.begin() as person:
                    person.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": self.post})
                    ((token, answer),) = self.kept(before, after)
                    completed = Completed(self.called[token], reply_of(answer), time.monotonic())
                    assert published.finish([completed], Published()) == [completed]
            case "time passes" | "time passes until the publisher has forgotten the key":
                self.time_passes((after.now - before.now).total_seconds(), after)
            case "an edit of the caption is recorded":
                with self.engine.begin() as tx:
                    factories.edit(tx, self.post, CAPTION if before.facts.caption == "first" else CAPTION_BACK)
            case "the edit is applied or refused":
                apply.apply_edits([self.post])
            case "it is deleted":
                with self.engine.begin() as tx:
                    assert deletion.delete(tx, factories.WORKSPACE, [self.post]).posts == [self.post]
            case "it is held":
                assert holding.hold(self.engine, self.post).posts == [self.post]
            case "it is resumed" | "it is resumed, and published if it was missed":
                holding.resume(self.engine, self.post, publish="published" in label)
            case "an operator retries" | "an operator retries --not-sent":
                with self.engine.begin() as tx:
                    locked = posts_store.lock_posts(tx, [self.post], "wait")
                    failures.retry(tx, locked.values(), Actor("op"), not_sent="--not-sent" in label)
            case _ if "finishes" in label:
                self.finish(label, before, after)
            case _:
                assert label.startswith("a call ends")

    def finish(self, label: str, before: State, after: State) -> None:
        def of(state: State) -> dict[str, Holder]:
            return {one.attempt.claim_token: one for one in state.holders}

        (token,) = [token for token, one in of(before).items() if of(after).get(token) != one]
        ends = label.removeprefix("a call ends ").partition(",")[0] if label.startswith("a call") else None
        answer = Outcome(ends) if ends else of(before)[token].reply
        assert answer is not None
        assert published.finish([Completed(self.called[token], reply_of(answer), time.monotonic())], Published()) == []

    @staticmethod
    def kept(before: State, after: State) -> list[tuple[str, Outcome]]:
        """The tries whose answers were written down between these states."""
        found = []
        for one in before.holders:
            token = one.attempt.claim_token
            open_before = token in before.gone or (before.waiting is not None and before.waiting[0] == token)
            open_after = token in after.gone or (after.waiting is not None and after.waiting[0] == token)
            if open_before and not open_after and one.reply is not None:
                found.append((token, one.reply))
        return found

    def time_passes(self, seconds: float, after: State) -> None:
        """What began before lies further back; what the model's clock has come to is due here too."""
        given = {
            "id": self.post,
            "seconds": seconds,
            "expired": after.expires is not None and after.expires <= after.now,
            "due": after.retry_at is not None and after.retry_at <= after.now,
        }
        with self.engine.begin() as tx:
            tx.execute(
                text("""UPDATE posts SET
                    claim_expires_at = CASE WHEN :expired THEN now() ELSE claim_expires_at END,
                    retry_at = CASE WHEN :due THEN now() ELSE retry_at END WHERE id = :id"""),
                given,
            )
            tx.execute(
                text("""UPDATE publish_attempts SET started_at = started_at - make_interval(secs => :seconds)
                        WHERE post_id = :id"""),
                given,
            )

    def agrees(self, state: State) -> None:
        with self.engine.begin() as tx:
            row: Any = tx.execute(text("SELECT *, now() AS now FROM posts WHERE id = :id"), {"id": self.post}).one()
            past = attempts_store.histories(tx, [self.post]).get(self.post)
            queued = self._queued(tx)
        facts = state.facts
        assert (row.status, row.claim_kind, row.deleted_at is not None) == (facts.status, facts.claim, facts.deleted)
        assert (row.caption, row.failure_reason) == (facts.caption, state.reason)
        assert (row.claim_token is None, row.retry_at is None) == (state.token is None, state.retry_at is None)
        held = (row.held_at is not None, row.missed_revision == row.schedule_revision)
        assert held == (state.own, state.missed == facts.schedule_revision)
        if state.expires is not None:
            assert (row.claim_expires_at <= row.now) == (state.expires <= state.now)
        assert queued == (state.queued is not None)
        assert (past is None) == (state.past is None)
        if past is not None and state.past is not None:
            assert past.idempotency_key == self.keys[state.past.idempotency_key]
            assert past.tries == state.past.tries
            assert shape(past.past) == shape(state.past.past)

    def _queued(self, tx: Connection) -> bool:
        asked = text("SELECT EXISTS (SELECT FROM edits WHERE post_id = :id AND status = 'queued')")
        return bool(tx.execute(asked, {"id": self.post}).scalar_one())


def reply_of(answer: Outcome) -> Reply:
    asks = QUARTER if answer in {Outcome.NOT_NOW, Outcome.PROCESSING} else None
    return Reply(answer, message=None if answer is Outcome.DONE else "no", retry_after=asks)


def shape(past: Past) -> tuple[object, ...]:
    if past.done:
        # Nothing is decided by the rest any more: the next claim finishes the post.
        return past.done, past.uncertain
    since = [time is None for time in (past.failing_since, past.busy_since, past.working_since, past.maybe_since)]
    return past.failures, past.unknown, past.waits, past.uncertain, past.accepted, past.maybe_sent, *since


def weight(label: str) -> float:
    return next((weight for start, weight in WEIGHTS.items() if label.startswith(start)), 2)


def test_the_model_and_the_rows_live_through_the_same_stories(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (publish, published):
        monkeypatch.setattr(module, "limits", lambda: LIMITS)
    chance, seen = random.Random(SEED), Counter[str]()
    for number in range(STORIES):
        state, lived, story = first(holds=number % 3), Lived(engine), list[str]()
        for _ in range(LONG):
            # The time of a post stands in its body: it cannot be moved along with the clock.
            ways = [(label, after) for label, after in steps(state) if "edit of the time" not in label]
            if not ways:
                break
            ((label, after),) = chance.choices(ways, [weight(label) for label, _ in ways])
            story.append(label)
            seen[label] += 1
            try:
                lived.step(label, state, after)
                lived.agrees(after)
            except Exception as error:
                raise AssertionError("\n  ".join([f"seed {SEED}, story {number}:", *story])) from error
            state = after
    wanted = ["a worker claims", "a claim gives up", "a worker finishes", "a worker finishes unheard", "time passes"]
    wanted += ["a worker finds the post locked, and keeps the answer", "a claim finds the 2xx"]
    wanted += ["time passes until the publisher has forgotten the key"]
    wanted += ["it is held", "it is resumed", "it is resumed, and published if it was missed"]
    wanted += ["the edit is applied or refused", "an operator retries", "an operator retries --not-sent"]
    assert [label for label in wanted if not seen[label]] == [], seen
