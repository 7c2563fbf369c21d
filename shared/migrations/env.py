"""Alembic's entry: one connection, one advisory lock, so that two starting stacks migrate one after the other."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from shared.models import metadata

_MIGRATION_LOCK = 7_339_265_001


def _run() -> None:
    url = context.config.attributes["url"]
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()
        # A migration that cannot get its lock soon must not queue everybody else up behind itself.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()
    engine.dispose()


_run()
