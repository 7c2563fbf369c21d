"""The statements that every edit pays for, run by the driver itself in SQLAlchemy's transaction.

SQLAlchemy's way from a text to its rows costs more than the rest of such a statement, and it cannot send several in one
trip (docs/decisions/0008). Pool, transaction, time-outs and the errors that callers see stay SQLAlchemy's.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

Statement = tuple[str, *tuple[object, ...]]
"""SQL with the parameters $1, $2, ..., and behind it their values."""


def rows(tx: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What a statement returns. DBAPIError as from `tx.execute`."""
    return _run(tx, lambda driver: _sent(driver, statement, values)).fetchall()


def changed(tx: Connection, statement: str, *values: object) -> int:
    """How many rows a statement wrote. DBAPIError as from `tx.execute`."""
    return _run(tx, lambda driver: _sent(driver, statement, values)).rowcount


def rows_together(tx: Connection, *statements: Statement) -> list[list[tuple[Any, ...]]]:
    """What each of several statements returns: one after the other for PostgreSQL, one trip for us."""
    return [cursor.fetchall() for cursor in _run(tx, lambda driver: _piped(driver, statements))]


def changed_together(tx: Connection, *statements: Statement) -> list[int]:
    """How many rows each of several statements wrote, likewise."""
    return [cursor.rowcount for cursor in _run(tx, lambda driver: _piped(driver, statements))]


def array(values: Sequence[str]) -> str:
    """A PostgreSQL array of texts as its literal, to be CAST: a tenth of the driver's own price."""
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * len(values) - 2:
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"


T = TypeVar("T")
Driver = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.RawCursor[tuple[Any, ...]]


def _sent(driver: Driver, statement: str, values: Sequence[object]) -> Cursor:
    cursor = psycopg.RawCursor(driver)
    cursor.execute(statement, values)
    return cursor


class _Trip(psycopg.Pipeline):
    """psycopg's pipeline, which ends with a Sync, without the Flush that it sends behind that.

    PostgreSQL stops its idle_in_transaction timer for any message, and starts it again for a Sync only: whoever froze
    between two trips would hold its rows for the whole transaction_timeout.
    """

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:  # noqa: ARG002  -- psycopg's signature
        return super()._fetch_gen(flush=False)


def _piped(driver: Driver, statements: Sequence[Statement]) -> list[Cursor]:
    driver._pipeline = _Trip(driver)  # noqa: SLF001  -- what `pipeline` uses, and lets go of at its end
    with driver.pipeline():
        return [_sent(driver, statement, values) for statement, *values in statements]


def _run(tx: Connection, work: Callable[[Driver], T]) -> T:
    driver = cast("Driver", tx.connection.driver_connection)
    try:
        return work(driver)
    except psycopg.Error as error:
        lost = tx.dialect.is_disconnect(cast("Any", error), cast("Any", driver), None)
        if lost:
            tx.invalidate(error)
        raise DBAPIError.instance(
            None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=lost
        ) from error
