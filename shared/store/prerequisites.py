"""Asks whether a role can start: its settings, and the PostgreSQL that they name. shared/domain/start_rules.py has the
rules.
"""

from contextlib import suppress
from typing import Final, NamedTuple

from shared.domain.start_rules import NAMED, StartError, contradictions, unfit
from shared.settings import Settings

_PATIENCE: Final = 2


class Server(NamedTuple):
    """A PostgreSQL that answers, and a database in it: `18.4`, `UTF8`. Empty where it does not say."""

    version: str
    encoding: str


def refuse(config: Settings) -> None:
    """StartError where nothing should start: settings that contradict each other, a database that cannot serve us."""
    if found := contradictions(config.model_dump(include=set(NAMED))):
        raise StartError("; ".join(found) + ". Change one of them.")
    if config.database_url:
        refuse_unfit_database(config.database_url)


def refuse_unfit_database(url: str) -> None:
    """StartError if that database cannot serve us. One that does not answer is no error here: its caller says that."""
    found = server(url)
    if found is not None and (wrong := unfit(*found)):
        raise StartError(f"{wrong.what}. {wrong.todo}")


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


def server(url: str) -> Server | None:
    """What answers there within 2 s, or None."""
    import psycopg  # noqa: PLC0415 - 0.1 s that a command which needs no server should not pay

    # Without the options of our own connections, which an old server does not know and would not connect for.
    with (
        suppress(psycopg.Error),
        psycopg.connect(_for_libpq(url), autocommit=True, connect_timeout=_PATIENCE) as connection,
    ):
        major, minor = divmod(connection.info.server_version, 10_000)
        return Server(f"{major}.{minor}", connection.info.parameter_status("server_encoding") or "")
    return None
