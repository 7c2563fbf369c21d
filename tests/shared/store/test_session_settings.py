"""Through a pooler each transaction brings its settings itself, and leaves none behind for the session's next user."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared.settings import Settings, settings
from shared.store import db, raw_statements, session_settings
from tests import factories

Block = Callable[[], AbstractContextManager[Connection]]
BLOCKS: dict[str, Block] = {
    "transaction": db.transaction,
    "autocommit": db.autocommit,
    "autocommit_relaxed": db.autocommit_relaxed,
}
blocks = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)


@pytest.fixture(params=[False, True], ids=["direct", "pooled"])
def pooled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, database_url: str) -> bool:
    wanted: bool = request.param
    if wanted:
        monkeypatch.setenv("REDRAFT_DATABASE_DIRECT_URL", database_url)
    return wanted


@pytest.fixture
def engine(pooled: bool, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def here(tx: Connection, name: str) -> str:
    [(value,)] = raw_statements.rows(tx, "SELECT current_setting($1)", name)
    return str(value)


@blocks
@pytest.mark.usefixtures("engine")
def test_each_way_to_the_database_has_all_settings(block: Block) -> None:
    with block() as tx:
        unlike = session_settings.missing(tx, settings())
        relaxed = block is db.autocommit_relaxed
        assert set(unlike) == ({"lock_timeout"} if relaxed else set())
        assert here(tx, "lock_timeout") == ("50ms" if relaxed else "2s")
        assert here(tx, "synchronous_commit") == ("off" if relaxed else "on")


@blocks
@pytest.mark.usefixtures("engine")
def test_they_end_with_the_transaction_where_others_use_the_session(block: Block, pooled: bool) -> None:
    with block() as tx:
        driver = tx.connection.driver_connection
    assert driver is not None
    driver.rollback()
    # Straight to the session, as its next user would come.
    driver.autocommit = True
    left = driver.execute("SELECT current_setting('transaction_timeout')").fetchone()
    driver.autocommit = False
    if pooled:
        assert left == ("0",)
    else:
        assert left == ("15s",)


@blocks
def test_what_a_block_wrote_is_committed(engine: Engine, block: Block) -> None:
    with block() as tx:
        raw_statements.rows(tx, "INSERT INTO workspaces (id, name) VALUES ('ws_2', 'two') RETURNING id")
    with engine.connect() as other:
        assert other.execute(text("SELECT name FROM workspaces WHERE id = 'ws_2'")).scalar() == "two"


@blocks
@pytest.mark.usefixtures("engine")
def test_a_session_that_has_died_is_a_passing_error_and_is_replaced(engine: Engine, block: Block) -> None:
    with block() as tx:
        [(pid,)] = raw_statements.rows(tx, "SELECT pg_backend_pid()")
    with engine.begin() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with pytest.raises(DBAPIError) as lost, block() as tx:
        raw_statements.rows(tx, "SELECT 1")
    assert db.is_transient(lost.value)
    with block() as tx:
        assert raw_statements.rows(tx, "SELECT 1") == [(1,)]
        assert here(tx, "transaction_timeout") == "15s"


def test_a_pooler_that_drops_the_options_is_found(database_url: str) -> None:
    """As PgBouncer does with `ignore_startup_parameters = options`: a connection without any of ours."""
    bare = factories.own_engine(database_url)
    with bare.begin() as tx:
        tx.execute(text("SET LOCAL timezone TO 'Asia/Tokyo'"))
        found = session_settings.missing(tx, Settings())
    assert found["lock_timeout"] == ("2000", "0")
    assert found["enable_seqscan"] == ("off", "on")
    assert found["timezone"] == ("UTC", "Asia/Tokyo")
    bare.dispose()
