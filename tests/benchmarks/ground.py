"""The servers of a run, as `redraft up` sets them, and for each turn a fresh database and an empty Redis in them."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import redis

from shared.local.datadir import DataDir
from shared.local.errors import LocalError
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.store.migrating import migrate
from tests.processes import Process, Server

IN_MEMORY = {"tmpfs", "ramfs"}
PREFIX = "redraft-bench-"
# What a shell says must not decide what is measured.
FOREIGN = ("REDRAFT_", "PG", "FLOWER_", "CELERY_", "UVICORN_", "WEB_CONCURRENCY")


class WrongMeasureError(Exception):
    """What was measured is not what the row says: an edit lost, another answer, a queue that never emptied."""


@dataclass(frozen=True)
class Stage:
    """Where one turn happens: a database of its own and an empty Redis."""

    database_url: str
    redis_url: str

    @property
    def dsn(self) -> str:
        """The database in libpq's words."""
        return self.database_url.replace("+psycopg", "", 1)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"REDRAFT_DATABASE_URL": self.database_url, "REDRAFT_REDIS_URL": self.redis_url}

    @contextmanager
    def sql(self) -> Iterator[psycopg.Connection]:
        """A connection that commits each statement, closed afterwards so that the database can be dropped."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            yield connection

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.redis_url) as client:
            yield client


class Ground:
    """A running PostgreSQL and a running Valkey, with templates that each turn starts from."""

    def __init__(self, folder: Path, postgres: Server, valkey: Server) -> None:
        self.folder = folder
        self._postgres = postgres
        self._valkey = valkey
        self._templates: set[str] = set()

    @property
    def postgres(self) -> PostgreSQL:
        assert isinstance(self._postgres.server, PostgreSQL)
        return self._postgres.server

    @property
    def valkey(self) -> Valkey:
        assert isinstance(self._valkey.server, Valkey)
        return self._valkey.server

    @property
    def processes(self) -> Mapping[str, Process]:
        return {"postgres": self._postgres.process, "valkey": self._valkey.process}

    def stage(self, database: str) -> Stage:
        """The database of that name, as it stands, with an empty Redis."""
        with redis.Redis.from_url(self.valkey.url()) as client:
            client.flushall()
        self._checkpoint()
        return Stage(self.postgres.url(database), self.valkey.url())

    def template(self, name: str, fill: Callable[[psycopg.Connection], object]) -> None:
        """Make a database with our tables, once a run, let `fill` fill it, and leave it vacuumed and analysed."""
        if name in self._templates:
            return
        began = time.monotonic()
        url = self.postgres.create_database(name)
        migrate(url)
        with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
            fill(connection)
            # Otherwise autovacuum would do it while somebody is measured.
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        self._templates.add(name)
        print(f"  made {name} in {time.monotonic() - began:.1f} s", flush=True)

    @contextmanager
    def turn(self, template: str) -> Iterator[Stage]:
        """A copy of the template for one contender's turn: nobody works on what another one left behind."""
        self.postgres.drop_database("turn")
        self.postgres.create_database("turn", template=template)
        try:
            yield self.stage("turn")
        finally:
            self.postgres.drop_database("turn")

    def _checkpoint(self) -> None:
        # What was written to prepare a turn is not to be flushed during it.
        with psycopg.connect(self.postgres.url("postgres").replace("+psycopg", "", 1), autocommit=True) as connection:
            connection.execute("CHECKPOINT")


def forget_environment() -> None:
    """Drop what the caller's shell set for us, our peers or PostgreSQL's tools."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    return next((mounts[above] for above in (resolved, *resolved.parents) if above in mounts), "unknown")


def _sweep(parent: Path) -> None:
    """Remove the gigabytes of a run that was killed: folders of ours that nobody holds any more."""
    for left in parent.glob(f"{PREFIX}*"):
        with suppress(LocalError, OSError):
            DataDir.open(left / "servers").close()
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def ground(parent: Path) -> Iterator[Ground]:
    """Start both servers in a new folder under `parent`; at the end, however it comes, both and the folder are gone.

    Raises WrongMeasureError for a file system in memory: a commit that waits for no disk flatters whoever commits
    most often.
    """
    kind = filesystem(parent)
    if kind in IN_MEMORY:
        raise WrongMeasureError(f"{parent} is kept in memory ({kind}); give a folder on a disk with --folder")
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o711)  # PostgreSQL may have to run as `nobody`
    data = DataDir.open(folder / "servers")
    # No settings of our own: exactly what `redraft up` gives a user, fsync and synchronous_commit included.
    postgres, valkey = Server(PostgreSQL(data)), Server(Valkey(data))
    try:
        postgres.start()
        valkey.start()
        yield Ground(folder, postgres, valkey)
    finally:
        valkey.close()
        postgres.close()
        data.close()
        shutil.rmtree(folder, ignore_errors=True)
