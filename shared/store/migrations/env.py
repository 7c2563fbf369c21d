"""Alembic's entry: one connection, one advisory lock, so that two starting stacks migrate one after the other.

Others work on meanwhile, with the code of before (docs/decisions/0010).
"""

import time
from typing import Final

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from shared.store.db import lock_timed_out
from shared.store.tables import metadata

_MIGRATION_LOCK: Final = 7_339_265_001
# A migration that waits for its lock has everybody else queue up behind it: they give up after settings' lock_timeout
# (2 s), so it gives way long before, lets them pass, and tries again.
_LOCK_TIMEOUT: Final = "250ms"
_GIVES_WAY: Final = 0.5
_TRIES_FOR: Final = 60.0


def _run() -> None:
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        _take_turns(connection)
        deadline = time.monotonic() + _TRIES_FOR
        while not _migrated(connection, deadline):
            time.sleep(_GIVES_WAY)
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()
    engine.dispose()


def _take_turns(connection: Connection) -> None:
    """Asked for again and again: a statement that waits holds a snapshot, and for the end of all those the other one's
    CREATE INDEX CONCURRENTLY waits in turn.
    """
    while True:
        taken = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATION_LOCK}).scalar_one()
        connection.commit()
        if taken:
            return
        time.sleep(0.1)


def _limit_lock_waits(connection: Connection) -> None:
    connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))


def _migrated(connection: Connection, deadline: float) -> bool:
    """Each migration is a transaction of its own: what was done stays done. False if it met a lock."""
    _limit_lock_waits(connection)
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        # A migration that builds an index may be patient; the next one may not.
        on_version_apply=lambda **_: _limit_lock_waits(connection),
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
    except DBAPIError as error:
        if not lock_timed_out(error) or time.monotonic() > deadline:
            raise
        connection.rollback()
        return False
    return True


_run()
