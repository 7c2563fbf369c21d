"""The statements that every edit pays for, run by the driver itself in SQLAlchemy's transaction.

SQLAlchemy's way from a text to its rows costs more than the rest of such a statement, and it cannot send several in one
trip (docs/decisions/0008). Pool, transaction, time-outs and the errors that callers see stay SQLAlchemy's.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from shared.store import STALE, StaleWriteError, trip
from shared.store.trip import Driver, Statement


def rows(tx: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What a statement returns. DBAPIError as from `tx.execute`."""
    return _run(tx, lambda driver: _sent(driver, statement, values)).fetchall()


def changed(tx: Connection, statement: str, *values: object) -> int:
    """How many rows a statement wrote. DBAPIError as from `tx.execute`."""
    return _run(tx, lambda driver: _sent(driver, statement, values)).rowcount


def rows_together(tx: Connection, *statements: Statement) -> list[list[tuple[Any, ...]]]:
    """What each of several statements returns: one after the other for PostgreSQL, one trip for us."""
    return _run(tx, lambda driver: [_loaded(driver, result) for result in _taken(tx, driver, statements)])


_at_commit: WeakKeyDictionary[Connection, tuple[Statement, ...]] = WeakKeyDictionary()


def at_commit(tx: Connection, *statements: Statement) -> None:
    """Have these statements sent with the COMMIT, in one trip. Nothing may be run in the transaction after this call.

    They check themselves (`store.expecting`): what they return is not looked at.
    """
    if statements:
        _at_commit[tx] = statements


def end_with(tx: Connection, commit: Statement) -> None:
    """Send what waits for the COMMIT, and the COMMIT. Nothing where nothing waits: SQLAlchemy commits then."""
    statements = _at_commit.pop(tx, ())
    if statements:
        _run(tx, lambda driver: _taken(tx, driver, (*statements, commit)))


def array(values: Sequence[str]) -> str:
    """A PostgreSQL array of texts as a literal, to be CAST: a tenth of the cost of the driver's own way."""
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * len(values) - 2:
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"


T = TypeVar("T")
Cursor = psycopg.RawCursor[tuple[Any, ...]]


def _sent(driver: Driver, statement: str, values: Sequence[object]) -> Cursor:
    cursor = psycopg.RawCursor(driver)
    cursor.execute(statement, values)
    return cursor


def _taken(tx: Connection, driver: Driver, statements: Sequence[Statement]) -> list[PGresult]:
    return trip.take(driver, tx.connection.info, statements)


def _loaded(driver: Driver, result: PGresult) -> list[tuple[Any, ...]]:
    transformer = Transformer(driver)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def _run(tx: Connection, work: Callable[[Driver], T]) -> T:
    driver = cast("Driver", tx.connection.driver_connection)
    try:
        return work(driver)
    except psycopg.Error as error:
        if error.sqlstate == STALE:
            raise StaleWriteError(error.diag.message_primary) from error
        lost = tx.dialect.is_disconnect(cast("Any", error), cast("Any", driver), None)
        if lost:
            tx.invalidate(error)
        raise DBAPIError.instance(
            None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=lost
        ) from error
    except BaseException:
        # A time limit or a signal came in the middle of a trip: the connection is closed and cannot roll back.
        if driver.closed:
            tx.invalidate()
        raise
