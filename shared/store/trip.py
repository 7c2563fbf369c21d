"""Several statements in one trip to PostgreSQL, over libpq's pipeline mode as `psycopg.pq` gives it.

psycopg (3.3) has a pipeline of its own, which sends a Flush behind the Sync that ends it. PostgreSQL (18) stops its
idle_in_transaction_session_timeout for any message and starts it again for a Sync only: a process that froze between
two trips would hold its row locks for the whole transaction_timeout. Nothing is sent behind the Sync here.

Each statement is prepared once for each connection, and travels by its name from then on.
"""

from collections.abc import MutableMapping, Sequence
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

Driver = psycopg.Connection[tuple[Any, ...]]
Statement = tuple[str, *tuple[str | int | None, ...]]
"""SQL with the parameters $1, $2, ..., and behind it their values."""

_BEGIN: Statement = ("BEGIN ISOLATION LEVEL READ COMMITTED",)
_PREPARED = "prepared"


def take(driver: Driver, kept: MutableMapping[str, Any], statements: Sequence[Statement]) -> list[PGresult]:
    """What each statement came to, in their order; psycopg.Error of the first that failed, none of them done.

    A transaction begins with the first of them, as in psycopg. `kept`: what is kept with this connection, as long as
    it lives.
    """
    pgconn = driver.pgconn
    prepared: dict[str, bytes] = kept.setdefault(_PREPARED, {})
    begins = not driver.autocommit and pgconn.transaction_status == TransactionStatus.IDLE
    wanted: list[bool] = []
    new: dict[str, bytes] = {}
    pgconn.enter_pipeline_mode()
    try:
        for statement in (_BEGIN, *statements) if begins else statements:
            sql, *values = statement
            name = prepared.get(sql) or new.get(sql)
            if name is None:
                name = new[sql] = b"redraft_" + sha256(sql.encode()).hexdigest()[:16].encode()
                # PostgreSQL may still know the name: a prepared statement outlives a failed transaction.
                pgconn.send_close_prepared(name)
                pgconn.send_prepare(name, sql.encode())
                wanted += [False, False]
            pgconn.send_query_prepared(name, [_sent(value) for value in values])
            wanted.append(statement is not _BEGIN)
        pgconn.pipeline_sync()
        results = driver.wait(_exchange(pgconn))
    except BaseException:
        # Unread answers would be taken for those of the next statement.
        pgconn.finish()
        raise
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=driver.info.encoding)
    prepared |= new
    return [result for result, asked_for in zip(results, wanted, strict=True) if asked_for]


def forget(kept: MutableMapping[str, Any]) -> None:
    """What this connection has prepared may be gone."""
    kept.pop(_PREPARED, None)


def _sent(value: str | int | None) -> bytes | None:
    if value is None:
        return None
    sent = str(value).encode()
    if b"\0" in sent:
        raise psycopg.DataError("PostgreSQL's texts hold no NUL")
    return sent


def _exchange(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """Write all that is queued, read what comes meanwhile, up to the answer to the Sync.

    Both at once: a server whose answers are not read stops reading, and then both sides would wait.
    """
    results: list[PGresult] = []
    writing = bool(pgconn.flush())
    while not _came(pgconn, results):
        while not (ready := (yield Wait.RW if writing else Wait.R)):
            pass
        try:
            if ready & Ready.R:
                pgconn.consume_input()
            if writing:
                writing = bool(pgconn.flush())
        except psycopg.OperationalError:
            # The server's last error says more than the closed connection.
            if not any(result.status == ExecStatus.FATAL_ERROR for result in results):
                raise
            break
    return results


def _came(pgconn: PGconn, results: list[PGresult]) -> bool:
    """Take the results that are here; whether they are all. The pipeline ends with the answer to its Sync."""
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == ConnStatus.BAD:
                return True
        elif result.status == ExecStatus.PIPELINE_SYNC:
            pgconn.exit_pipeline_mode()
            return True
        else:
            results.append(result)
    return False
