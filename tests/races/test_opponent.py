"""Row 23 of the faults, step by step: posts on their way to a publisher that plays against us, on a real database and
over real connections, while clients edit, move and delete them, workers die, and operators retry.

At its door it counts what takes effect. What it keeps its word in stands in tests/reference_services/opponent.py.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Engine, create_engine, text

from api import deletion
from shared.domain.service_answers import Reply
from shared.local.postgres import PostgreSQL
from shared.store import failures
from shared.store import posts as posts_store
from shared.store.acts import Actor
from tests import factories
from tests.conftest import TEMPLATE
from tests.faults.evidence import Call, PostRow, gather, snapshot
from tests.faults.oracle import judge, verdict
from tests.reference_services.opponent import InThread, Opponent, in_thread
from tests.worker.fake_services import at
from worker import apply, publish, published
from worker.outbound import connections
from worker.outbound.call_pool import Completed
from worker.published import Called, Published

SECRET, PATIENCE = "whsec_opponent", 0.12
MOMENT = PATIENCE * 2
POSTS = 2
HAPPENINGS = [
    *["a worker claims"] * 5, *["a call is made"] * 5, *["a call is finished"] * 4, *["time passes"] * 4,
    *["an edit comes"] * 2, "a worker dies", "the publisher restarts", "the publisher is away", "a post is deleted",
    *["an operator retries"] * 2, "an operator has looked", "days pass",
]  # fmt: skip
CHANGES = st.sampled_from([{"caption": "second"}, {"caption": "first"}, {"soundId": "7001"}, {"minutes": -10}])

ATTEMPTS = text("""
    SELECT post_id, bool_or(coalesce(outcome, 'unknown') = 'unknown' AND NOT not_sent) AS doubt,
        bool_or(coalesce(outcome, '') = 'done') AS done
    FROM publish_attempts WHERE post_id = ANY(:ids) GROUP BY post_id""")
PASSES = text("""
    UPDATE posts SET claim_expires_at = CASE WHEN claim_kind IS NOT NULL THEN now() END,
        retry_at = CASE WHEN retry_at IS NOT NULL THEN now() END WHERE id = :id""")
DAYS = text("UPDATE publish_attempts SET started_at = started_at - interval '3 days' WHERE post_id = ANY(:ids)")
HOUR = text("UPDATE publish_attempts SET started_at = started_at - interval '25 minutes' WHERE post_id = :id")


@dataclass
class Worker:
    """One that claimed a post; its call, once it is made, in a thread of its own."""

    called: Called
    thread: threading.Thread | None = None
    replies: list[Reply] = field(default_factory=list)

    def call(self) -> None:
        self.thread = threading.Thread(target=lambda: self.replies.append(publish._call(self.called)), daemon=True)
        self.thread.start()

    def completed(self) -> Completed[Called]:
        assert self.thread is not None
        self.thread.join(30)
        return Completed(self.called, self.replies[0], time.monotonic())


class Playing(RuleBasedStateMachine):
    """Two posts that are due."""

    engine: ClassVar[Engine]
    running: ClassVar[InThread]

    def __init__(self) -> None:
        super().__init__()
        self.posts: list[str] = []
        self.first: dict[str, PostRow] = {}
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.away = False
        self.disclaimed: set[str] = set()

    @property
    def opponent(self) -> Opponent:
        return self.running.opponent

    @initialize(seed=st.integers(0, 2**16))
    def create(self, seed: int) -> None:
        self.opponent.seed, self.opponent.calm = seed, False
        with self.engine.begin() as tx:
            self.posts = [factories.post(tx, scheduled_time=factories.soon(-5)) for _ in range(POSTS)]
        self.first = snapshot(self.engine, self.posts)

    @rule(what=st.sampled_from(HAPPENINGS), post=st.sampled_from([0, 0, 1]), pick=st.integers(0, 99), changes=CHANGES)
    def happens(self, what: str, post: int, pick: int, changes: dict[str, Any]) -> None:
        post_id, ready = self.posts[post], [one for one in self.workers if one.thread is None]
        called = [one for one in self.workers if one.thread is not None]
        match what:
            case "a worker claims":
                self.claim(post_id)
            case "a call is made" if ready:
                ready[pick % len(ready)].call()
            case "a call is finished" if called:
                self.finish(called[pick % len(called)])
            case "time passes":
                self.time_passes(post_id, far=pick % 4 == 0)
            case "an edit comes":
                self.edit(post_id, changes)
            case "a worker dies" if self.workers:
                self.dead.append(self.workers.pop(pick % len(self.workers)))
            case "the publisher restarts" if not self.away:
                self.running.stop()
                self.running.start()
            case "the publisher is away":
                (self.running.start if self.away else self.running.stop)()
                self.away = not self.away
            case "a post is deleted" if pick % 3 == 0:
                with self.engine.begin() as tx:
                    deletion.delete(tx, factories.WORKSPACE, [post_id])
            case "days pass" if pick % 2 == 0:
                self.days_pass()
            case "an operator retries":
                self.retry(post_id)
            case "an operator has looked":
                self.look(post_id)

    def claim(self, post_id: str) -> None:
        done = Published()
        fence = self._row(post_id).schedule_revision
        self.workers += [Worker(called) for called in publish.claim({post_id: fence}, done)]
        event(f"a claim: {done.outcomes.get(post_id)}")

    def finish(self, worker: Worker) -> None:
        self.workers.remove(worker)
        completed, done = worker.completed(), Published()
        assert published.finish([completed], done) == []
        event(f"a finish: {done.outcomes[worker.called.attempt.post_id]} after {completed.reply.kind}")

    def time_passes(self, post_id: str, *, far: bool) -> None:
        with self.engine.begin() as tx:
            tx.execute(PASSES, {"id": post_id})
            if far:
                tx.execute(HOUR, {"id": post_id})

    def days_pass(self) -> None:
        """The publisher forgets its keys. What was under way has ended by then; what had not begun never will."""
        for worker in [*self.workers, *self.dead]:
            if worker.thread is not None:
                worker.thread.join(30)
            else:
                worker.called = replace(worker.called, began=worker.called.began - 3 * 86400)
        # A request that its caller has given up may not have been read yet.
        if not self.away:
            self.running.stop()
            self.running.start()
        with self.engine.begin() as tx:
            tx.execute(DAYS, {"ids": self.posts})
        self.opponent.forget()
        event("days passed")

    def edit(self, post_id: str, changes: dict[str, Any]) -> None:
        body = at(changes["minutes"]) if "minutes" in changes else changes
        with self.engine.begin() as tx:
            edit = factories.edit(tx, post_id, body)
            tx.execute(text("UPDATE edits SET created_at = now() - interval '2 hours' WHERE id = :id"), {"id": edit})
        apply.apply_edits([post_id])
        event(f"an edit is {factories.row(self.engine, 'edits', edit).status}")

    def retry(self, post_id: str, *, not_sent: bool = False) -> None:
        with self.engine.begin() as tx:
            locked = posts_store.lock_posts(tx, [post_id], "wait")
            back = failures.retry(tx, locked.values(), Actor("operator"), not_sent=not_sent)
        event(f"a retry: {back[0].back if back else 'no'}{', not sent' if not_sent else ''}")

    def look(self, post_id: str) -> None:
        """An operator waits until nothing can be under way any more, looks, and may then say that it did not go out."""
        if self._row(post_id).status != "failed":
            return
        mine = [one for one in [*self.workers, *self.dead] if one.called.attempt.post_id == post_id]
        self.workers = [one for one in self.workers if one not in mine]
        for worker in mine:
            if worker.thread is not None:
                worker.thread.join(30)
        if not self.away:
            self.running.stop()
            self.running.start()
        if not self.effects_of(post_id):
            self.retry(post_id, not_sent=True)
            self.disclaimed.add(post_id)

    def effects_of(self, post_id: str) -> list[str]:
        return [key for post, key in self.opponent.effects if post == post_id]

    def _row(self, post_id: str) -> Any:
        return factories.row(self.engine, "posts", post_id)

    # What must hold.

    @invariant()
    def nothing_goes_out_twice(self) -> None:
        bodies: defaultdict[str, set[str]] = defaultdict(set)
        for call in list(self.opponent.came):
            bodies[call.key].add(call.body)
            assert call.genuine
        assert all(len(one) == 1 for one in bodies.values()), bodies
        for post_id in self.posts:
            # The rows first: an effect may come about while we look.
            row, doubts = self._row(post_id), self._doubts()
            effects = self.effects_of(post_id)
            assert len(effects) <= 1, self.story(post_id)
            if row.status == "posted":
                assert effects, self.story(post_id)
            if row.deleted_at is not None:
                assert not effects, self.story(post_id)
            if row.status == "failed" and post_id in doubts:
                assert row.failure_reason == "publish_outcome_unknown", self.story(post_id)
            if effects and row.status == "failed":
                said = {"publish_outcome_unknown", "publisher_unavailable"}
                assert row.failure_reason in said, self.story(post_id)
            if effects and row.status == "generated":
                assert row.claim_kind == "publish", self.story(post_id)

    def _key_too_old(self, post_id: str) -> bool:
        with self.engine.connect() as tx:
            too_old = failures.keys_too_old(tx, [post_id]) == [post_id]
        return too_old and self._row(post_id).status == "failed"

    def _doubts(self) -> set[str]:
        with self.engine.connect() as tx:
            return {row.post_id for row in tx.execute(ATTEMPTS, {"ids": self.posts}) if row.doubt and not row.done}

    def story(self, post_id: str) -> str:
        evidence = gather(self.engine, self.first, (), self._journal())
        came = [f"{one.key[-6:]} {one.attempt}: {one.move}" for one in self.opponent.came if one.post_id == post_id]
        return "\n  ".join([evidence.story(post_id), f"effects: {self.effects_of(post_id)}", *came])

    def _journal(self) -> list[Call]:
        return [Call(one.at, one.key, one.body, one.status) for one in self.opponent.came if one.post_id in self.posts]

    def teardown(self) -> None:
        """Then all goes well: what had failed is retried. Each post goes out or is deleted, or its key is too old."""
        if not self.posts:
            return
        if self.away:
            self.running.start()
        self.opponent.calm = True
        for worker in list(self.workers):
            if worker.thread is None:
                worker.call()
            self.finish(worker)
        for _ in range(6):
            for post_id in self.posts:
                self.time_passes(post_id, far=False)
                self.retry(post_id)
                self.claim(post_id)
            for worker in list(self.workers):
                worker.call()
                self.finish(worker)
        self.nothing_goes_out_twice()
        for post_id in self.posts:
            row = self._row(post_id)
            ended = row.status == "posted" or row.deleted_at is not None
            assert ended or self._key_too_old(post_id), self.story(post_id)
        first = {post_id: row for post_id, row in self.first.items() if post_id not in self.disclaimed}
        journal = [call for call in self._journal() if json.loads(call.body)["post"]["postId"] in first]
        violations = judge(evidence := gather(self.engine, first, (), journal))
        assert not violations, verdict(evidence, violations)
        for worker in self.dead:
            if worker.thread is not None:
                worker.thread.join(30)


class MorePlaying(Playing):
    """The same, at length and anew each time."""


FIXED = settings(
    max_examples=25,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Real connections and real time: a story told again may end otherwise.
    phases=[Phase.generate],
)
TestPlaying = Playing.TestCase
TestPlaying.settings = FIXED
TestMorePlaying = pytest.mark.faults(MorePlaying.TestCase)
TestMorePlaying.settings = settings(FIXED, max_examples=200, stateful_step_count=80, derandomize=False)


@pytest.fixture(scope="module", autouse=True)
def _stage(postgres: PostgreSQL) -> Iterator[None]:
    url = postgres.create_database("opponent", template=TEMPLATE)
    with in_thread(Opponent(SECRET, 0, PATIENCE)) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDRAFT_PUBLISHER_URL", running.url)
        patch.setenv("REDRAFT_SERVICE_SECRET", SECRET)
        patch.setenv("REDRAFT_SERVICE_TIMEOUT", str(PATIENCE))
        with factories.set_up(patch, url):
            Playing.engine, Playing.running = create_engine(url), running
            yield
            Playing.engine.dispose()
            connections.close_idle()
