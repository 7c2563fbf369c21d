"""The short way to PostgreSQL fails as the long one does, and its literals say what was meant."""

import signal
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from shared.settings import settings
from shared.store import StaleWriteError, db, expecting, raw_statements
from shared.store.trip import Statement
from tests import factories, sizes
from tests.waiting import eventually

END_ME = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "run",
    [
        lambda tx: raw_statements.rows(tx, END_ME),
        lambda tx: raw_statements.rows_together(tx, ("SELECT 1",), (END_ME,)),
    ],
    ids=["alone", "together"],
)
def test_a_lost_connection_is_told_as_sqlalchemy_tells_it_and_replaced(run: Callable[[Connection], object]) -> None:
    with pytest.raises(DBAPIError) as lost, db.transaction() as tx:
        run(tx)
    assert lost.value.connection_invalidated
    assert db.is_transient(lost.value)
    with db.transaction() as tx:
        assert raw_statements.rows(tx, "SELECT CAST($1 AS integer) + 1", 1) == [(2,)]


@pytest.mark.usefixtures("engine")
def test_of_statements_sent_together_one_that_fails_undoes_them_all_and_shows_no_value() -> None:
    with pytest.raises(DBAPIError) as failed, db.transaction() as tx:
        raw_statements.rows_together(
            tx,
            ("INSERT INTO workspaces (id, name) VALUES ('ws_2', $1)", "never"),
            ("INSERT INTO workspaces (id, name) VALUES ('ws_3', CAST($1 AS integer))", "secret"),
        )
    assert not db.is_transient(failed.value)
    with db.transaction() as tx:
        assert raw_statements.rows(tx, "SELECT count(*) FROM workspaces WHERE id <> $1", factories.WORKSPACE) == [(0,)]


def test_a_session_that_idles_behind_statements_sent_together_is_ended_in_its_time(
    engine: Engine, database_url: str
) -> None:
    """Whoever froze there would hold its rows for the whole transaction's time-out, 15 s, instead."""
    hasty = db.make_engine(database_url, settings().model_copy(update={"idle_in_transaction_session_timeout": 0.2}))
    with hasty.connect() as tx:
        [[(backend,)], _] = raw_statements.rows_together(tx, ("SELECT pg_backend_pid()",), ("SELECT 1",))

        def gone() -> bool:
            with engine.connect() as other:
                return not raw_statements.rows(other, "SELECT 1 FROM pg_stat_activity WHERE pid = $1", backend)

        eventually(gone, within=30)
        tx.invalidate()
    hasty.dispose()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "values",
    [
        [],
        ["a"],
        ["a", "b"],
        ['with "quotes"', "back\\slash", "{curly}", "comma,", "", "NULL", "ü\n"],
        [*sizes.CAPTIONS, *sizes.TAGS, sizes.url("long"), "\\" * 100_000, '"' * 100_000],
        ["post_1"] * 10_000,
    ],
)
def test_an_array_s_literal_is_read_back_as_it_was(values: list[str]) -> None:
    with db.transaction() as tx:
        assert raw_statements.rows(tx, "SELECT CAST($1 AS text[])", raw_statements.array(values)) == [(values,)]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("size", [1, 30_000, 30_000_000])
def test_statements_of_any_size_get_through_together_and_so_do_their_answers(size: int) -> None:
    """30 MB are more than any socket's buffers hold: whoever waits to read before all is written waits for ever."""
    value = "é" * (size // 2) + "e"
    with db.transaction() as tx:
        assert raw_statements.rows_together(
            tx, ("SELECT CAST($1 AS text)", value), ("SELECT octet_length($1), CAST($2 AS integer)", value, None)
        ) == [[(value,)], [(len(value.encode()), None)]]
        assert raw_statements.rows(tx, "SELECT 1") == [(1,)]


@pytest.mark.usefixtures("engine")
def test_a_trip_begins_its_own_transaction_and_is_rolled_back_with_it() -> None:
    made = "INSERT INTO workspaces (id, name) VALUES ($1, $1) RETURNING id"
    with db.transaction() as tx, tx.begin_nested() as all_of_it:
        assert raw_statements.rows_together(tx, (made, "ws_2"), (made, "ws_3")) == [[("ws_2",)], [("ws_3",)]]
        all_of_it.rollback()
    with db.transaction() as tx:
        assert raw_statements.rows_together(tx, (made, "ws_2"), (made, "ws_3")) == [[("ws_2",)], [("ws_3",)]]
        tx.rollback()
    with db.transaction() as tx:
        # Each of them again: what was prepared outlives the transaction, and a failure of its neighbours.
        assert raw_statements.rows_together(tx, ("SELECT id FROM workspaces WHERE id <> $1", factories.WORKSPACE)) == [
            []
        ]
        assert raw_statements.rows_together(tx, (made, "ws_2")) == [[("ws_2",)]]


@pytest.mark.usefixtures("engine")
def test_what_was_prepared_beside_a_statement_that_failed_can_be_sent_again() -> None:
    with db.transaction() as tx:
        for _ in range(2):
            with pytest.raises(DBAPIError), tx.begin_nested():
                raw_statements.rows_together(tx, ("SELECT 1 + 1",), ("SELECT 1 / CAST($1 AS integer)", 0))
        assert raw_statements.rows_together(tx, ("SELECT 1 + 1",)) == [[(2,)]]


@pytest.mark.usefixtures("engine")
def test_what_was_prepared_is_prepared_again_where_psycopg_had_it_dropped() -> None:
    """Behind a ROLLBACK it sends DEALLOCATE ALL, if it has prepared anything itself: it does after five times."""

    def asked(tx: Connection) -> None:
        assert raw_statements.rows_together(tx, ("SELECT 2 + 2",)) == [[(4,)]]
        for _ in range(7):
            assert raw_statements.rows(tx, "SELECT 3 + $1", 3) == [(6,)]

    for _ in range(3):
        with db.transaction() as tx:
            asked(tx)
        with db.transaction() as tx, tx.begin_nested() as inner:
            asked(tx)
            inner.rollback()
            asked(tx)
        with db.engine().connect() as tx:
            asked(tx)


@pytest.mark.usefixtures("engine")
def test_a_connection_prepares_a_statement_once_for_all_transactions_that_commit() -> None:
    """Parsed and planned anew for each edit it cost more than all the rest of a lone edit's trip."""
    prepared = "SELECT pg_backend_pid(), prepare_time FROM pg_prepared_statements WHERE statement = $1"
    seen: set[tuple[object, ...]] = set()
    for _ in range(4):
        with db.transaction() as tx:
            raw_statements.rows_together(tx, ("SELECT 4 + 4",))
            seen.update(raw_statements.rows(tx, prepared, "SELECT 4 + 4"))
    assert len(seen) == 1


@pytest.mark.usefixtures("engine")
def test_an_interruption_in_the_middle_of_a_trip_leaves_no_answer_for_the_next() -> None:
    def interrupt(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(TimeoutError), db.transaction() as tx:  # noqa: PT012  -- the timer belongs to the trip
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            raw_statements.rows_together(tx, ("SELECT pg_sleep(10)",), ("SELECT 'stale'",))
    finally:
        signal.signal(signal.SIGALRM, before)
    with db.transaction() as tx:
        assert raw_statements.rows_together(tx, ("SELECT 'fresh'",)) == [[("fresh",)]]


@pytest.mark.usefixtures("engine")
def test_a_value_that_no_text_of_postgresql_holds_is_refused_not_cut_off() -> None:
    with pytest.raises(DBAPIError), db.transaction() as tx:
        raw_statements.rows_together(tx, ("SELECT $1", "a\0b"))


MADE = "INSERT INTO workspaces (id, name) VALUES ($1, $1)"


def workspaces() -> list[str]:
    with db.transaction() as tx:
        found = raw_statements.rows(
            tx, 'SELECT id FROM workspaces WHERE id <> $1 ORDER BY id COLLATE "C"', factories.WORKSPACE
        )
    return [row[0] for row in found]


@pytest.mark.usefixtures("engine")
def test_what_waits_for_the_commit_is_sent_with_it_and_once() -> None:
    with db.transaction() as tx:
        raw_statements.rows(tx, "SELECT 1")
        raw_statements.at_commit(tx, (MADE, "ws_2"), (MADE, "ws_3"))
        assert workspaces() == []
    assert workspaces() == ["ws_2", "ws_3"]
    with db.transaction() as tx:
        raw_statements.rows(tx, "SELECT 1")
    assert workspaces() == ["ws_2", "ws_3"]


def leave(*statements: Statement, given_up: bool = False) -> None:
    with db.transaction() as tx:
        raw_statements.rows(tx, "SELECT 1")
        raw_statements.at_commit(tx, *statements)
        if given_up:
            raise ZeroDivisionError


@pytest.mark.usefixtures("engine")
def test_a_transaction_that_is_given_up_sends_nothing_of_it_nor_does_the_next_one() -> None:
    with pytest.raises(ZeroDivisionError):
        leave((MADE, "ws_2"), given_up=True)
    leave()
    assert workspaces() == []


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("expected", [0, 2])
def test_another_number_of_rows_than_expected_ends_the_trip_that_would_have_committed(expected: int) -> None:
    checked = expecting("UPDATE workspaces SET name = $1 WHERE id = $2", "$3", "rename")
    with pytest.raises(StaleWriteError, match=f"rename: 1 rows instead of {expected}"):
        leave((MADE, "ws_2"), (checked, "never", "ws_2", expected))
    assert workspaces() == []
    leave((MADE, "ws_2"), (checked, "renamed", "ws_2", 1))
    assert workspaces() == ["ws_2"]


@pytest.mark.usefixtures("engine")
def test_a_connection_that_is_lost_before_the_commit_is_transient_and_commits_nothing() -> None:
    with pytest.raises(DBAPIError) as lost:
        leave((MADE, "ws_2"), ("SELECT pg_terminate_backend(pg_backend_pid())",))
    assert db.is_transient(lost.value)
    assert workspaces() == []
