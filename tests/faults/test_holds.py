"""A resume whose process dies at any point: nothing goes out unsaid, and the resume is begun again."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.store import db, scope_holds
from shared.store import holds as holds_store
from shared.store.scope_holds import Scope, Work
from tests import factories, holding

LATE = 5
"""Posts whose time went by, in pages of two: each page is a transaction of its own."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    monkeypatch.setattr(scope_holds, "TOGETHER", 2)
    with factories.set_up(monkeypatch, database_url, redis_url):
        yield db.engine()


def killed(engine: Engine, work: Work) -> None:
    """What PostgreSQL sees of a process that is killed: the session is over, and what it had not committed is gone."""
    with engine.begin() as tx:
        work(tx)
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def dies(engine: Engine, scope: Scope, number: int, *, publish: bool, committed: bool) -> bool:
    """A resume that dies in its transaction of this number, before its COMMIT or behind it. False: it ended before."""
    works = scope_holds.resuming(scope, holding.KIM, publish_missed=publish)
    step = None
    for here in range(1, number + 1):
        try:
            work = works.send(step) if step is not None else next(works)
        except StopIteration:
            return False
        if here < number or committed:
            with engine.begin() as tx:
                step = work(tx)
            continue
        with pytest.raises(DBAPIError):
            killed(engine, work)
    return True


@pytest.mark.parametrize("committed", [False, True], ids=["before its COMMIT", "behind its COMMIT"])
@pytest.mark.parametrize("publish", [False, True], ids=["resume", "resume and publish"])
def test_row_27_a_resume_that_dies_half_way_sends_nothing_unsaid_and_is_begun_again(
    engine: Engine, *, publish: bool, committed: bool
) -> None:
    number, died = 0, True
    while died:
        number += 1
        scope = Scope(factories.WORKSPACE, f"acc_dies_{number}")
        with engine.begin() as tx:
            factories.account(tx, f"acc_dies_{number}")
            given = {"account_id": scope.account_id}
            late = [factories.post(tx, scheduled_time=factories.soon(-5), **given) for _ in range(LATE)]
            # What still waits for its render is marked by the transaction that ends the hold.
            late += [factories.slides(tx, scheduled_time=factories.soon(-5), **given) for _ in range(3)]
            later = factories.post(tx, **given)
        holding.hold_scope(engine, scope)
        died = dies(engine, scope, number, publish=publish, committed=committed)
        with engine.begin() as tx:
            stands = scope_holds.of(tx, scope) is not None
            kept = holds_store.effective(tx, [*late, later])
        # The hold keeps all of it. Behind the hold, what missed its time is kept, or was let go by word.
        assert (later in kept) is stands
        for post in late:
            assert post in kept or (publish and not stands and factories.row(engine, "posts", post).released_at)
        holding.resume_scope(engine, scope, publish=publish)
        with engine.begin() as tx:
            assert scope_holds.of(tx, scope) is None
            assert set(holds_store.effective(tx, [*late, later])) == (set() if publish else set(late))
            acts = text("SELECT count(*) FROM acts WHERE subject_id = :id AND action = 'resume'")
            assert tx.execute(acts, {"id": scope.account_id}).scalar_one() == 1
    assert number > (6 if publish else 3)
