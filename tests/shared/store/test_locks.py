"""Which session has a post locked: found before any other session waits for it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from shared.settings import Settings
from shared.store import locks
from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def pid_of(tx: Connection) -> int:
    return int(tx.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM posts WHERE id = :id FOR UPDATE",
        "SELECT id FROM posts WHERE id = :id FOR NO KEY UPDATE",
        "UPDATE posts SET caption = 'x' WHERE id = :id",
        "LOCK TABLE posts IN EXCLUSIVE MODE",
    ],
)
def test_the_session_that_has_a_post_locked_is_named_without_waiting_for_it(engine: Engine, statement: str) -> None:
    with engine.begin() as tx:
        home, other = factories.post(tx), factories.post(tx)
    table = statement.startswith("LOCK")
    with engine.connect() as holder, engine.begin() as looks:
        holder.execute(text("SET application_name = 'by-hand'"))
        holder.execute(text(statement), {} if table else {"id": home})
        found = locks.of_posts(looks, [home, other], age=0)
        assert found.keys() == ({home, other} if table else {home})
        assert (found[home].pid, found[home].idle) == (pid_of(holder), True)
        assert found[home].who.startswith("by-hand, ")
        assert found[home].since is not None
        # Our own transactions lock posts for milliseconds.
        assert locks.of_posts(looks, [home], age=60) == {}
        holder.rollback()
        assert locks.of_posts(looks, [home, other], age=0) == {}


def test_a_lock_that_was_taken_in_a_savepoint_is_found(engine: Engine) -> None:
    with engine.begin() as tx:
        home = factories.post(tx)
    with engine.connect() as holder, engine.begin() as looks, holder.begin_nested():
        holder.execute(text("SELECT id FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        assert locks.of_posts(looks, [home], age=0)[home].pid == pid_of(holder)


def test_a_session_of_redraft_is_named_only_when_it_should_have_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker under load has a post locked for seconds. An operator who ends its session makes that worse."""
    with engine.begin() as tx:
        home = factories.post(tx)
    with engine.connect() as worker, engine.begin() as looks:
        worker.execute(text("SET application_name = 'redraft'"))
        worker.execute(text("SELECT id FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        assert locks.of_posts(looks, [home], age=0) == {}
        monkeypatch.setattr(locks, "settings", lambda: Settings(transaction_timeout=0.0))
        assert locks.of_posts(looks, [home], age=0)[home].pid == pid_of(worker)


def test_nothing_is_asked_for_no_posts(engine: Engine) -> None:
    with engine.begin() as tx, factories.statements() as seen:
        assert locks.of_posts(tx, []) == {}
    assert seen == []
