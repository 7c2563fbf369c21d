"""Real servers for every test: one PostgreSQL and one Valkey per run, a fresh database in each for each test."""

import importlib
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.settings import settings
from shared.store.migrating import migrate
from tests import factories
from tests import processes as real
from tests.processes import Processes, Server

# What a developer's shell says must not decide what a test sees.
for name in [name for name in os.environ if name.startswith(("REDRAFT_", "PG", "FLOWER_", "CELERY_"))]:
    del os.environ[name]
# Nor may what started the run: in the background of a shell Ctrl-C is ignored, by all that is started from here too.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "template_redraft"
LOGICAL_DATABASES = 1024
numbers = count()


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """A test that sets REDRAFT_ variables leaves nothing behind in the cache."""
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """The run's PostgreSQL, with a template that holds our tables. Writes are not flushed to disk."""
    with real.postgres() as server:
        postgres = server.server
        assert isinstance(postgres, PostgreSQL)
        migrate(postgres.create_database(TEMPLATE))
        yield postgres


@pytest.fixture
def database_url(postgres: PostgreSQL) -> Iterator[str]:
    """A migrated, empty database for this test alone: `postgresql+psycopg://user:password@127.0.0.1:port/name`."""
    name = f"test_{next(numbers)}"
    yield postgres.create_database(name, template=TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The run's Valkey. Tests that restart, freeze or flush it take `own_valkey` instead."""
    with real.valkey(appendonly="no", databases=str(LOGICAL_DATABASES)) as server:
        valkey = server.server
        assert isinstance(valkey, Valkey)
        yield valkey


def empty_database(valkey: Valkey) -> str:
    """The next logical database, emptied. A module that keeps one meets no other module's: which modules share a
    process, and how many tests came before, changes from run to run.
    """
    url = valkey.url(next(numbers) % LOGICAL_DATABASES)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """An empty logical database: `redis://:password@127.0.0.1:port/n`. Pub/sub channels are shared by all of them."""
    return empty_database(valkey)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    """This process as a worker or API of a database and a Redis of the test's own."""
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """A PostgreSQL that this test may kill and restart. `.url` is a migrated database in it."""
    with real.postgres() as server:
        assert isinstance(server.server, PostgreSQL)
        migrate(server.server.create_database())
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Server]:
    """A Valkey that this test may kill, freeze, flush and restart. It keeps its data on disk, as in `redraft up`."""
    with real.valkey() as server:
        yield server


def pytest_collection(session: pytest.Session) -> None:
    """Import the tests, in another order in each process of a run.

    Each process needs all of them with their assertions rewritten, which takes 8 s of CPU on a fresh clone. A file that
    another process has written is not written again. In one order all processes write the same file at a time.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    folder = Path(__file__).parent
    names = sorted(path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("test_*.py"))
    first = len(names) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for name in names[first:] + names[:first]:
        # Collection meets the error again and reports it.
        with suppress(Exception):
            importlib.import_module(".".join(name.parts))


# The files with the longest single tests begin first: a file is one process's, and the last one to begin ends the run.
LONGEST = (
    "contract/test_schema.py", "faults/test_rows.py", "races/test_interleavings.py", "docs/test_commands.py",
    "test_secrets.py", "faults/test_workers.py", "faults/test_redis.py", "faults/test_sizes.py", "faults/test_bulk.py",
    "faults/test_doorbells.py", "faults/test_api.py", "races/test_opponent.py", "faults/test_publisher_answers.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put them first; all else stays in its order."""
    folder = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.relative_to(folder).as_posix() if item.path.is_relative_to(folder) else ""
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and (started := getattr(item, "funcargs", {}).get("processes")):
        report.sections.append(("real processes", started.report()))
    return report


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts real processes; see tests/processes.py. Ends them all after the test."""
    started = Processes()
    yield started
    started.close()
