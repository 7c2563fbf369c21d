"""Repeats race their first request over real connections: the key's first row is met before anything is refused."""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from api import creation, posts, reschedules
from api.context import Context
from api.models.creation import NewVideos
from api.models.edits import parse_patch
from api.submission.recording import Recorded, Request, Verdict, record_batch
from shared.domain import errors
from shared.domain.body_reading import read
from shared.domain.errors import CannotEdit, RedraftError
from shared.domain.ids import new_id
from shared.settings import settings
from shared.store import creation as creation_store
from shared.store import db
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import reschedules as reschedules_store
from shared.store.edits import NewEdit
from shared.store.idempotency import Repeat
from shared.store.keys import Key
from tests import factories
from tests.faults.actors import waits_for_a_lock
from tests.waiting import until

OWNER = Key(factories.KEY_ID, factories.WORKSPACE, "tests", frozenset(), None)


class Gate:
    """Stops the first thread that passes, until it is let on."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def before(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*given: Any, **options: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                assert self.open.wait(30)
            return do(*given, **options)

        return gated


def new_edit(post: str, key: str | None = "again", caption: str = "once") -> NewEdit:
    return NewEdit(
        *(new_id("edit"), post, factories.WORKSPACE, {"caption": caption}, None, factories.KEY_ID, "tests", "req_test"),
        key=key, fingerprint="ab" * 32 if key else None,
    )  # fmt: skip


def recorded(*new: NewEdit) -> list[Verdict]:
    """One batch, as a process of its own would write it."""
    loop = asyncio.new_event_loop()
    batch = [Request(one, parse_patch(one.changes), None, loop.create_future(), 0.0) for one in new]
    loop.close()
    return record_batch(batch)


def goes_out(post: str) -> None:
    with db.transaction() as tx:
        tx.execute(text("UPDATE posts SET status = 'posted', posted_at = now() WHERE id = :id"), {"id": post})


def test_a_repeat_is_not_refused_by_what_became_true_while_the_first_was_on_its_way(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is judged, the post goes out, the repeat comes through another process, the first is recorded."""
    with engine.begin() as tx:
        post = factories.post(tx)
    gate, looks = Gate(), []
    monkeypatch.setattr(edits_store, "insert_edits", gate.before(edits_store.insert_edits))

    async def repeat() -> None:
        context = Context(settings())
        context.submission.start()
        record = context.submission.record

        def counted(*given: Any, **options: Any) -> Any:
            looks.append(given)
            return record(*given, **options)

        monkeypatch.setattr(context.submission, "record", counted)
        try:
            new = new_edit(post)
            waiting = asyncio.create_task(posts._recorded(context, new, parse_patch(new.changes), None, awaited=False))
            await until(lambda: len(looks) > 2)
            assert not waiting.done(), "it waits for the first one"
            # The wait holds up nobody: another key of the same process, judged meanwhile.
            beside = new_edit(post, "other")
            refused = await posts._recorded(context, beside, parse_patch(beside.changes), None, awaited=False)
            assert isinstance(refused, CannotEdit)
            assert not waiting.done()
            gate.open.set()
            repeated.append(await waiting)
        finally:
            gate.open.set()
            await context.close()

    repeated: list[Verdict] = []
    with ThreadPoolExecutor(1) as elsewhere:
        first = new_edit(post)
        accepted = elsewhere.submit(recorded, first)
        assert gate.reached.wait(10)
        goes_out(post)
        asyncio.run(repeat())
        (verdict,) = accepted.result(10)
    assert isinstance(verdict, Recorded)
    assert not verdict.replayed
    assert repeated == [Recorded(first.id, None, replayed=True)]


def test_a_key_that_stays_in_hand_is_a_503_that_says_so_and_its_neighbours_are_recorded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that froze with the key in hand: the repeat must not be told that nothing was accepted."""
    with engine.begin() as tx:
        post = factories.post(tx)
    gate = Gate()
    monkeypatch.setattr(edits_store, "insert_edits", gate.before(edits_store.insert_edits))
    with ThreadPoolExecutor(1) as elsewhere:
        frozen = elsewhere.submit(recorded, new_edit(post))
        try:
            assert gate.reached.wait(10)
            verdicts = recorded(new_edit(post), new_edit(post, "other"), new_edit(post, None))
        finally:
            gate.open.set()
        frozen.result(10)
    assert isinstance(verdicts[0], errors.KeyInHand)
    assert "is being recorded" in verdicts[0].message
    assert [type(verdict) for verdict in verdicts[1:]] == [Recorded, Recorded]


@pytest.mark.usefixtures("engine")
def test_whatever_crosses_what_a_key_has_one_result() -> None:
    """Two processes with the same key, and the post goes out at any moment between: both are refused and no edit is
    there, or both name the one edit.
    """
    chance = random.Random(20_240_422)
    outcomes = set()
    with ThreadPoolExecutor(3) as threads:
        for number in range(200):
            with db.transaction() as tx:
                post = factories.post(tx)
            begin = threading.Barrier(3)
            spins = [chance.randrange(40_000) for _ in range(3)]

            def at_once(do: Callable[[], Any], spin: int, begin: threading.Barrier = begin) -> Any:
                begin.wait(10)
                for _ in range(spin):
                    pass
                return do()

            def patch(post: str = post, key: str = f"key-{number}") -> Verdict:
                new = new_edit(post, key)
                while True:
                    (verdict,) = recorded(new)
                    if not isinstance(verdict, errors.KeyInHand):
                        return verdict

            def out(post: str = post) -> None:
                goes_out(post)

            work: list[Callable[[], Any]] = [patch, patch, out]
            done = [threads.submit(at_once, do, spin) for do, spin in zip(work, spins, strict=True)]
            verdicts = [one.result(20) for one in done[:2]]
            done[2].result(20)
            with db.transaction() as tx:
                edits = list(tx.execute(text("SELECT id FROM edits WHERE post_id = :id"), {"id": post}).scalars())
            named = [verdict.edit_id if isinstance(verdict, Recorded) else None for verdict in verdicts]
            assert named == (edits * 2 if edits else [None, None]), (number, verdicts)
            outcomes.add(bool(edits))
    assert outcomes == {True, False}, "the race was real"


def created(key: str) -> Any:
    body = {"accountIds": [factories.TIKTOK], "contentUrl": "https://cdn.example.com/a.mp4"}
    with db.transaction() as tx:
        return creation.create(
            tx, creation.Asked(OWNER, read(NewVideos, body).wanted(), Repeat(OWNER.id, key, "ab" * 32), 60.0)
        )


def started(key: str, *, refused: RedraftError | None = None) -> Any:
    def make(_: Connection) -> Any:
        return reschedules._job_of(OWNER, plan={"kind": "shift", "by": "P1D"}, dry_run=True, filter={"all": True})

    with db.transaction() as tx:
        return reschedules.start(tx, reschedules.Wanted(OWNER, refused or make, Repeat(OWNER.id, key, "ab" * 32)))


def test_a_repeated_creation_waits_for_the_first_though_its_account_is_gone_by_now(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(creation_store, "insert_posts", gate.before(creation_store.insert_posts))
    with ThreadPoolExecutor(2) as elsewhere:
        first = elsewhere.submit(created, "create")
        assert gate.reached.wait(10)
        with engine.begin() as tx:
            tx.execute(text("DELETE FROM accounts WHERE id = :id"), {"id": factories.TIKTOK})
        again = elsewhere.submit(created, "create")
        try:
            assert "pg_advisory_xact_lock" in waits_for_a_lock(engine)
            assert not again.done()
        finally:
            gate.open.set()
        made, repeated = first.result(10), again.result(10)
    assert (repeated.answer, repeated.replayed) == (made.answer, True)
    with pytest.raises(errors.NotFound):
        created("later")


def test_a_repeated_job_waits_for_the_first_though_it_would_be_refused_by_now(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(reschedules_store, "insert_job", gate.before(reschedules_store.insert_job))
    with ThreadPoolExecutor(2) as elsewhere:
        first = elsewhere.submit(started, "job")
        assert gate.reached.wait(10)
        again = elsewhere.submit(started, "job", refused=errors.InvalidRequest("scheduledTime lies in the past"))
        try:
            assert "pg_advisory_xact_lock" in waits_for_a_lock(engine)
            assert not again.done()
        finally:
            gate.open.set()
        made, repeated = first.result(10), again.result(10)
    assert (repeated.job.id, repeated.replayed) == (made.job.id, True)
    with pytest.raises(errors.InvalidRequest):
        started("later", refused=errors.InvalidRequest("scheduledTime lies in the past"))


def test_a_key_that_stays_in_hand_too_long_is_a_503_for_creations_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_LOCK_TIMEOUT", "0.2")
    factories.forget_caches()
    with db.transaction() as frozen:
        idempotency_store.take(frozen, [(factories.KEY_ID, "create")])
        with pytest.raises(errors.KeyInHand):
            created("create")
    assert created("create").posts
