"""Engines and `transaction()`, the only commit in the project."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.settings import Settings, settings
from shared.store import raw_statements, session_settings, trip

# jsonb comes back through pydantic's parser: three times as fast as the standard library's, on every row read.
set_json_loads(from_json)

# How much longer than the server's own limit an answer is waited for: by then the server would have said so.
OVERTIME = 2.0


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose answers are waited for `patience` seconds, not for ever.

    The server ends every transaction of ours in time and says so. A longer silence means a half-open connection.
    Keep-alives and tcp_user_timeout notice a host that vanished. But a load balancer whose server vanished acknowledges
    every byte, and the waiting thread would never return.
    """

    usual: float | None = None
    patience: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, which every statement comes through; OperationalError when the patience is over."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status == TransactionStatus.ACTIVE:
                # Given up in the middle of an answer: a ROLLBACK would only wait for that answer once more.
                self.pgconn.finish()
            raise


def wait_longer(tx: Connection, seconds: float) -> None:
    """Wait longer for answers in this transaction, which has set a longer `transaction_timeout` itself."""
    wire = tx.connection.driver_connection
    if isinstance(wire, BoundedConnection):
        wire.patience = seconds + OVERTIME


def make_engine(
    url: str,
    config: Settings,
    *,
    pool_size: int = 8,
    name: str = "redraft",
    synchronous_commit: bool = True,
    autocommit: bool = False,
    lock_timeout: float | None = None,
) -> Engine:
    """An engine whose connections carry the settings' time-outs, READ COMMITTED, in UTC.

    A dead connection is noticed in use, not by a ping at every checkout: the callers retry anyway.
    `autocommit`: each statement is a transaction of its own. Through a pooler a block of them is one transaction, since
    settings come with its beginning.
    `synchronous_commit=False`: a commit does not wait for the disk.
    `lock_timeout`: seconds, where it is another one than the settings'.
    """
    wanted = session_settings.wanted(config, lock_timeout=lock_timeout, synchronous_commit=synchronous_commit)
    pooled = bool(config.database_direct_url)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=config.database_patience,
        pool_use_lifo=True,
        # An error must not print bound values: captions, URLs, keys.
        hide_parameters=True,
        isolation_level="AUTOCOMMIT" if autocommit and not pooled else "READ COMMITTED",
        connect_args={
            **({} if pooled else {"options": session_settings.options(wanted)}),
            "application_name": name,
            "connect_timeout": 2,
            # A half-open connection (a host that vanished) is noticed within seconds, not hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
        },
    )

    if pooled:
        session_settings.bring_with_each_transaction(engine, wanted)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> BoundedConnection:
        wire = BoundedConnection.connect(*args, **options)
        wire.usual = wire.patience = config.transaction_timeout + OVERTIME
        return wire

    @event.listens_for(engine, "checkin")
    def checkin(wire: Any, _record: Any) -> None:
        if isinstance(wire, BoundedConnection):
            wire.patience = wire.usual

    # Behind a ROLLBACK psycopg (3.3) has PostgreSQL drop what was prepared, ours too (shared/store/trip.py).
    @event.listens_for(engine, "rollback")
    @event.listens_for(engine, "rollback_savepoint")
    def rolled_back(connection: Connection, *_: Any) -> None:
        if not connection.invalidated:
            trip.forget(connection.connection.info)

    @event.listens_for(engine, "reset")
    def reset(wire: psycopg.Connection[Any], record: Any, state: Any) -> None:
        # Behind a COMMIT the pool rolls back too, but that ROLLBACK is never sent.
        if not state.transaction_was_reset and wire.info.transaction_status != TransactionStatus.IDLE:
            trip.forget(record.info)

    return engine


class ProcessEngine:
    """This process's engine, made on first use. Threads that need it at the same moment wait for that one.

    A forked child makes its own. It keeps a reference to its parent's engine: it must neither use nor close those
    connections, and garbage collection would close them. The lock is held over a fork, because a lock that another
    thread holds at that moment would stay locked in the child.
    """

    def __init__(self, make: Callable[[Settings], Engine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._parents: Engine | None = None
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forked)

    def __call__(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make(settings())
            return self._engine

    def made(self) -> bool:
        """Whether the engine has been made yet."""
        return self._engine is not None

    def forget(self) -> None:
        """Close the engine. The next call makes a new one."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _forked(self) -> None:
        self._parents, self._engine = self._engine, None
        self._lock.release()


engine = ProcessEngine(lambda config: make_engine(config.database_url, config, pool_size=16))
"""This process's engine."""

# The caller has posts locked while it waits here. So it waits no longer than for a post that is locked elsewhere.
RELAXED_WAITS = 0.05
_autocommit_relaxed = ProcessEngine(
    lambda config: make_engine(
        config.database_url,
        config,
        pool_size=16,
        name="redraft-autocommit-relaxed",
        synchronous_commit=False,
        autocommit=True,
        lock_timeout=min(config.lock_timeout, RELAXED_WAITS),
    )
)
_autocommit = ProcessEngine(
    lambda config: make_engine(config.database_url, config, name="redraft-autocommit", autocommit=True)
)


@contextmanager
def transaction(on: Engine | None = None) -> Iterator[Connection]:
    """One transaction, on this process's engine unless another is given; leaving the block commits, an exception rolls
    back. Announce, enqueue and ring below the block, never inside.
    """
    with (on or engine()).begin() as connection:
        yield connection
        # SQLAlchemy finds the transaction committed, and sends nothing more.
        raw_statements.end_with(connection, ("COMMIT",))


@contextmanager
def autocommit() -> Iterator[Connection]:
    """Each statement is a transaction of its own, committed when it returns: half the trips of `transaction`.

    For a write that is complete in one statement and depends on nothing that was read before.
    """
    with _each_alone(_autocommit()) as connection:
        yield connection


@contextmanager
def autocommit_relaxed() -> Iterator[Connection]:
    """Statements that commit one by one beside an open transaction, without waiting for the disk.

    For attempt counts only: a crash of PostgreSQL may lose the last few, which does no harm.
    """
    with _each_alone(_autocommit_relaxed()) as connection:
        yield connection


def _each_alone(on: Engine) -> AbstractContextManager[Connection]:
    return transaction(on) if settings().database_direct_url else on.connect()


def lock_timed_out(error: BaseException) -> bool:
    """Whether a statement gave up waiting for a lock of another session."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)


def is_transient(error: BaseException) -> bool:
    """Whether PostgreSQL failed in a way that says nothing about the work itself: lost, restarting, timed out, full,
    read-only.
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, (TimeoutError, PoolTimeoutError))
    return bool(error.connection_invalidated) or isinstance(
        error.orig,
        (
            psycopg.OperationalError,  # connections, shutdowns, lock and transaction time-outs, deadlocks, resources
            psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.TransactionTimeout,
            psycopg.InterfaceError,
            psycopg.errors.ReadOnlySqlTransaction,
        ),
    )


def repeats(error: BaseException) -> bool:
    """Whether PostgreSQL ended the work because it was too long or too large. The same work would fail again."""
    return isinstance(error, DBAPIError) and isinstance(
        error.orig,
        (
            psycopg.errors.TransactionTimeout,
            psycopg.errors.QueryCanceled,
            psycopg.errors.ProgramLimitExceeded,
            psycopg.errors.StatementTooComplex,
            psycopg.errors.OutOfMemory,
        ),
    )


def read_only(error: BaseException) -> bool:
    """Whether PostgreSQL refused a write because it takes none for now: a demoted primary, or a hosted database whose
    disk is full. The statement did nothing.
    """
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.ReadOnlySqlTransaction)


def connections_in_use() -> int:
    """How many connections of this process's pool are in use; 0 before the first."""
    if not engine.made():
        return 0
    pool: Any = engine().pool
    return int(pool.checkedout())
