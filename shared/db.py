"""The database's door: engines, `transaction()` (the only commit in the project) and migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.types.json import set_json_loads
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.settings import Settings, settings

# jsonb comes back through pydantic's parser: three times as fast as the standard library's, on every row read.
set_json_loads(from_json)


def make_engine(
    url: str, config: Settings, *, pool_size: int = 8, name: str = "redraft", durable: bool = True
) -> Engine:
    """An engine whose connections carry the time-outs of SPEC 7, READ COMMITTED, in UTC.

    A dead connection is found by use, not by a ping before every checkout: whoever uses it retries anyway.
    `durable=False`: each statement commits by itself and does not wait for the disk.
    """
    limits = {
        "lock_timeout": config.lock_timeout,
        "idle_in_transaction_session_timeout": config.idle_in_transaction_session_timeout,
        "transaction_timeout": config.transaction_timeout,
    }
    options = " ".join(f"-c {key}={int(seconds * 1000)}" for key, seconds in limits.items())
    if not durable:
        options += " -c synchronous_commit=off"
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=config.database_patience,
        pool_use_lifo=True,
        # An error must not print what was bound: captions, URLs, keys (SPEC 9).
        hide_parameters=True,
        isolation_level="READ COMMITTED" if durable else "AUTOCOMMIT",
        connect_args={
            # Every statement of ours finds its rows by an index. A plan cached while a table was still small would
            # walk the whole of it, and go on doing so while it grows.
            "options": f"{options} -c timezone=UTC -c jit=off -c enable_seqscan=off",
            "application_name": name,
            "connect_timeout": 2,
            # A half-open connection (a host that vanished) is noticed within seconds, not hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
        },
    )


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process's engine. Never used before a fork: Celery's children make their own on first use."""
    config = settings()
    return make_engine(config.database_url, config, pool_size=16)


@lru_cache(maxsize=1)
def _aside() -> Engine:
    config = settings()
    return make_engine(config.database_url, config, pool_size=16, name="redraft-aside", durable=False)


@contextmanager
def transaction(on: Engine | None = None) -> Iterator[Connection]:
    """One transaction, on this process's engine unless told another; leaving the block commits, an exception rolls
    back. Announce, enqueue and ring below the block, never inside.
    """
    with (on or engine()).begin() as connection:
        yield connection


@contextmanager
def aside() -> Iterator[Connection]:
    """Statements that commit one by one beside an open transaction, without waiting for the disk.

    For attempt counts only (SPEC 3.5): a crash of PostgreSQL may forget the last few, which costs nobody anything.
    """
    with _aside().connect() as connection:
        yield connection


def lock_timed_out(error: BaseException) -> bool:
    """Whether a statement gave up waiting for a lock somebody else holds."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)


def passing(error: BaseException) -> bool:
    """Whether PostgreSQL failed in a way that says nothing about the work itself: lost, restarting, timed out, full."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (TimeoutError, PoolTimeoutError))
    return bool(error.connection_invalidated) or isinstance(
        error.orig,
        (
            psycopg.OperationalError,  # connections, shutdowns, lock and transaction time-outs, deadlocks, resources
            psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.TransactionTimeout,
            psycopg.InterfaceError,
        ),
    )


def alembic_config(url: str) -> Config:
    """Alembic's configuration without a file of its own: one place says where the migrations stand."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database up to `revision`. Two at once are safe: the second waits and finds nothing to do."""
    command.upgrade(alembic_config(url), revision)
