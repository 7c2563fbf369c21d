"""Holds, resumes, retries and bulk jobs among all that test_interleavings.py does, in random order, against the oracle.

After each step no post that is held, by itself or by its account, has a try that it did not have when the hold was
committed, unless its claim was there before. Once all is let go, every edit has its result and every due post is out.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from sqlalchemy import create_engine, pool, text

from shared.domain.errors import Unavailable
from shared.local.postgres import PostgreSQL
from shared.store import db, failures, scope_holds
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store.scope_holds import Step, Work
from tests import factories, jobs
from tests.conftest import TEMPLATE
from tests.faults.actors import stopping_points
from tests.holding import ACCOUNT, KIM
from tests.races import test_interleavings as base
from worker import schedule

HOLDS = [
    "a post is held", "a post is resumed", "a post is resumed and published", "its account is held",
    "its account is resumed", "its account is resumed and published", "dispatch looks for missed posts",
    "an operator retries", "a job moves it",
]  # fmt: skip


class HeldInterleavings(base.Interleavings):
    """`allowed`: of each held post the keys of its tries when it was held; None where its claim was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: dict[str, set[str] | None] = {}

    @rule(
        what=st.sampled_from([*base.HAPPENINGS, *HOLDS, *HOLDS[:3]]), post=base.which, patch=base.patches,
        tag=base.tags, pick=base.picks, stop_at=base.stops, kind=base.kinds,
    )  # fmt: skip
    def happens(self, what: str, post: int | None, **given: Any) -> None:
        if what not in HOLDS:
            super().happens(what=what, post=post, **given)
            return
        post_id = self.posts[self.focus if post is None else post]
        if self.person is not None and what in {"an operator retries", "a job moves it"}:
            return
        try:
            self._do(what, post_id, given["pick"])
        except Exception as error:
            if not (isinstance(error, Unavailable) or db.lock_timed_out(error)):
                raise
            event(f"{what}: it waited for a lock, in vain")
        else:
            event(what)

    def _do(self, what: str, post_id: str, pick: int) -> None:
        publish = "published" in what
        match what.removesuffix(" and published"):
            case "a job moves it":
                if self.paused is None:
                    jobs.done({"filter": {"postIds": [post_id]}, "shift": ("PT5M", "-PT5M")[pick % 2]})
            case "dispatch looks for missed posts":
                schedule.mark_missed()
            case "its account is resumed":
                self._resume_account(publish=publish)
            case _:
                with self.engine.begin() as tx:
                    tx.execute(text("SET LOCAL lock_timeout = 50"))
                    self._in_transaction(tx, what, post_id, publish=publish)

    def _in_transaction(self, tx: Any, what: str, post_id: str, *, publish: bool) -> None:
        if what == "its account is held":
            taken = scope_holds.take(tx, ACCOUNT, KIM, None)
            for one in self.posts:
                self._note(tx, one, named=one in taken.going_out)
        elif what == "an operator retries":
            holds_store.lock_in_share(tx, [post_id])
            failures.retry(tx, posts_store.lock_posts(tx, [post_id], "wait").values(), KIM)
        else:
            locked = posts_store.lock_posts(tx, [post_id], "wait")
            if what == "a post is held":
                if holds_store.hold_posts(tx, locked.values(), KIM, None).posts:
                    self._note(tx, post_id, named=locked[post_id].facts.claim == "publish")
            else:
                holds_store.resume_posts(tx, locked.values(), KIM, publish_missed=publish)

    def _resume_account(self, *, publish: bool) -> None:
        def in_transaction(work: Work) -> Step:
            with self.engine.begin() as tx:
                tx.execute(text("SET LOCAL lock_timeout = 50"))
                return work(tx)

        scope_holds.run(scope_holds.resuming(ACCOUNT, KIM, publish_missed=publish), in_transaction, lambda _: None)

    def _note(self, tx: Any, post_id: str, *, named: bool) -> None:
        """What a held post may have: the tries that it has, or any under a claim that was there before."""
        if self.allowed.get(post_id, ()) is not None:
            tries = tx.execute(text("SELECT claim_token FROM publish_attempts WHERE post_id = :id"), {"id": post_id})
            self.allowed[post_id] = None if named else set(tries.scalars())

    @invariant()
    def nothing_goes_out_while_it_is_held(self) -> None:
        with self.engine.connect() as tx:
            held = holds_store.effective(tx, self.posts)
            for post_id in self.posts:
                if post_id not in held:
                    self.allowed.pop(post_id, None)
                    continue
                tries = tx.execute(
                    text("SELECT claim_token FROM publish_attempts WHERE post_id = :id"), {"id": post_id}
                )
                now, allowed = set(tries.scalars()), self.allowed.get(post_id, set())
                # One whose time went by is seen to be missed before a first look at it here.
                if post_id not in self.allowed:
                    self.allowed[post_id] = now
                elif allowed is not None:
                    assert now <= allowed, f"{post_id} was tried while {held[post_id]} held it"

    def teardown(self) -> None:
        """All holds end, and what missed its time goes out. Then as without holds."""
        if self.person is not None:
            self.the_person_lets_go()
        if self.paused is not None:
            self.let_the_stopped_one_on()
        if self.posts:
            self._resume_account(publish=True)
            with self.engine.begin() as tx:
                locked = posts_store.lock_posts(tx, self.posts, "wait")
                holds_store.resume_posts(tx, locked.values(), KIM, publish_missed=True)
        super().teardown()


TestHeldInterleavings = HeldInterleavings.TestCase
TestHeldInterleavings.settings = settings(base.FIXED, max_examples=20)


@pytest.fixture(scope="module", autouse=True)
def _stage(postgres: PostgreSQL) -> Iterator[None]:
    url = postgres.create_database("hold_interleavings", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch, factories.set_up(patch, url), stopping_points():
        # A connection that is used again may have lost what was prepared on it. Only db.make_engine knows of that.
        HeldInterleavings.engine = create_engine(url, poolclass=pool.NullPool)
        yield
        HeldInterleavings.engine.dispose()
