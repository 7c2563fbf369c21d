"""The short way to PostgreSQL fails as the long one does, and its literals say what was meant."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from shared import db
from shared.settings import settings
from shared.store import direct
from tests import rows
from tests.waiting import eventually

END_ME = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with rows.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "run",
    [
        lambda tx: direct.rows(tx, END_ME),
        lambda tx: direct.rows_together(tx, ("SELECT 1",), (END_ME,)),
    ],
    ids=["alone", "together"],
)
def test_a_lost_connection_is_told_as_sqlalchemy_tells_it_and_replaced(run: Callable[[Connection], object]) -> None:
    with pytest.raises(DBAPIError) as lost, db.transaction() as tx:
        run(tx)
    assert lost.value.connection_invalidated
    assert db.passing(lost.value)
    with db.transaction() as tx:
        assert direct.rows(tx, "SELECT CAST($1 AS integer) + 1", 1) == [(2,)]


@pytest.mark.usefixtures("engine")
def test_of_statements_sent_together_one_that_fails_undoes_them_all_and_shows_no_value() -> None:
    with pytest.raises(DBAPIError) as failed, db.transaction() as tx:
        direct.changed_together(
            tx,
            ("INSERT INTO workspaces (id, name) VALUES ('ws_2', $1)", "never"),
            ("INSERT INTO workspaces (id, name) VALUES ('ws_3', CAST($1 AS integer))", "secret"),
        )
    assert not db.passing(failed.value)
    with db.transaction() as tx:
        assert direct.rows(tx, "SELECT count(*) FROM workspaces WHERE id <> $1", rows.WORKSPACE) == [(0,)]


def test_a_session_that_idles_behind_statements_sent_together_is_ended_in_its_time(
    engine: Engine, database_url: str
) -> None:
    """Whoever froze there would hold its rows for the whole transaction's time-out, 15 s, instead."""
    hasty = db.make_engine(database_url, settings().model_copy(update={"idle_in_transaction_session_timeout": 0.2}))
    with hasty.connect() as tx:
        [[(backend,)], _] = direct.rows_together(tx, ("SELECT pg_backend_pid()",), ("SELECT 1",))

        def gone() -> bool:
            with engine.connect() as other:
                return not direct.rows(other, "SELECT 1 FROM pg_stat_activity WHERE pid = $1", backend)

        eventually(gone, within=5)
        tx.invalidate()
    hasty.dispose()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "values", [[], ["a"], ["a", "b"], ['with "quotes"', "back\\slash", "{curly}", "comma,", "", "NULL", "ü\n"]]
)
def test_an_array_s_literal_is_read_back_as_it_was(values: list[str]) -> None:
    with db.transaction() as tx:
        assert direct.rows(tx, "SELECT CAST($1 AS text[])", direct.array(values)) == [(values,)]
