"""Asks whether a role can start: its settings, and the PostgreSQL that they name. shared/domain/start_rules.py has the
rules.
"""

from contextlib import suppress
from typing import Final

from shared.domain.start_rules import NAMED, OLDEST_POSTGRESQL, StartError, contradictions, is_too_old
from shared.settings import Settings

_PATIENCE: Final = 2


def refuse(config: Settings) -> None:
    """StartError where nothing should start: settings that contradict each other, a PostgreSQL that is too old."""
    if found := contradictions(config.model_dump(include=set(NAMED))):
        raise StartError("; ".join(found) + ". Change one of them.")
    if config.database_url:
        refuse_old_postgresql(config.database_url)


def refuse_old_postgresql(url: str) -> None:
    """StartError if that PostgreSQL is too old. One that does not answer is no error here: its caller says that."""
    version = postgresql_version(url)
    if version is not None and is_too_old(version):
        raise StartError(
            f"PostgreSQL {version} is too old: Redraft needs {OLDEST_POSTGRESQL} or newer. "
            "Upgrade it, or let REDRAFT_DATABASE_URL name a newer one."
        )


def _for_libpq(url: str) -> str:
    """The URL as libpq takes it. SQLAlchemy writes several hosts as `?host=one:5432&host=two:5432`."""
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    if "host=" not in plain:
        return plain
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - most URLs name one host, and need neither
    from sqlalchemy.engine import make_url  # noqa: PLC0415

    parsed = make_url(url)
    _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo(**arguments)


def postgresql_version(url: str) -> str | None:
    """`18.4`, or None if nothing answers there within 2 s."""
    import psycopg  # noqa: PLC0415 - 0.1 s that a command which needs no server should not pay

    # Without the options of our own connections, which an old server does not know and would not connect for.
    with (
        suppress(psycopg.Error),
        psycopg.connect(_for_libpq(url), autocommit=True, connect_timeout=_PATIENCE) as connection,
    ):
        number = connection.info.server_version
        return f"{number // 10_000}.{number % 10_000}"
    return None
