"""The settings of PostgreSQL that every transaction of ours runs with, and the two ways to bring them there.

A connection of its own gets them once, as options of its start. A pooler in transaction mode lends one session to many,
and passes no options on: each transaction brings its own, in the trip that begins it (docs/deployment.md).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, event, text

from shared.settings import Settings
from shared.store import raw_statements

if TYPE_CHECKING:
    from shared.store.trip import Statement

USUAL: Final[Mapping[str, str]] = {
    "timezone": "UTC",
    "jit": "off",
    # Every statement here finds its rows by an index. A plan that was cached while a table was small would scan or hash
    # the whole table, also after the table has grown. Each edit beside the first bulk job would then read all rows of
    # that job.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


def wanted(
    config: Settings, *, lock_timeout: float | None = None, synchronous_commit: bool = True
) -> Mapping[str, str]:
    """Names and values; times in milliseconds."""
    limits = {
        "lock_timeout": config.lock_timeout if lock_timeout is None else lock_timeout,
        "idle_in_transaction_session_timeout": config.idle_in_transaction_session_timeout,
        "transaction_timeout": config.transaction_timeout,
    }
    relaxed = {} if synchronous_commit else {"synchronous_commit": "off"}
    return {**{name: str(int(seconds * 1000)) for name, seconds in limits.items()}, **relaxed, **USUAL}


def options(settings: Mapping[str, str]) -> str:
    """They as `options` of a connection's start."""
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def bring_with_each_transaction(engine: Engine, settings: Mapping[str, str]) -> None:
    """Have every transaction of this engine begin with them, and end without them."""
    calls = ", ".join(f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(settings)))
    statement: Statement = (f"SELECT {calls}", *(part for pair in settings.items() for part in pair))

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        raw_statements.rows_together(connection, statement)


_READ: Final = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")


def missing(tx: Connection, config: Settings) -> dict[str, tuple[str, str]]:
    """The settings that this transaction does not run with: what each should be, and what it is."""
    should = wanted(config)
    # PostgreSQL spells one of them with capitals.
    found = {name.lower(): value for name, value in tx.execute(_READ, {"names": [*should, "TimeZone"]})}
    return {name: (value, found[name]) for name, value in should.items() if found.get(name, value) != value}
