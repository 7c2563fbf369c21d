"""A harness for each test, on servers of its own where the test strikes servers; seed and history on failure."""

import os
import random
import zlib
from collections.abc import Callable, Generator, Iterator

import pytest
from sqlalchemy import Engine

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database, numbers
from tests.faults.harness import Harness
from tests.processes import Processes

MakeHarness = Callable[..., Harness]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Fixed for the tests that always run, new each time for the long ones, FAULTS_SEED's where that is set."""
    if given := os.environ.get("FAULTS_SEED"):
        return int(given)
    if request.node.get_closest_marker("faults"):
        return random.randrange(2**32)
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def make_harness(request: pytest.FixtureRequest, processes: Processes, seed: int) -> Iterator[MakeHarness]:
    """Makes a harness on the given database and Redis; `make_harness(database_url, redis_url, **environment)`."""
    made: list[Harness] = []

    def make(database_url: str, redis_url: str, **environment: str) -> Harness:
        made.append(Harness(processes, database_url, redis_url, seed, **environment))
        return made[-1]

    request.node.harnesses = made
    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def harness(make_harness: MakeHarness, database_url: str, redis_url: str) -> Harness:
    """A harness on the run's own servers, for faults that strike our processes only."""
    return make_harness(database_url, redis_url)


@pytest.fixture(scope="module")
def engine(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Engine]:
    """This process as a worker on a database of the module's, for histories that are told step by step."""
    number = next(numbers)
    url = postgres.create_database(f"faults_{number}", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch, factories.set_up(patch, url, empty_database(valkey)) as engine:
        yield engine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        harnesses = getattr(item, "harnesses", ())
        for harness in harnesses:
            report.sections.append(("seed and history", harness.report()))
        given = getattr(item, "funcargs", {}).get("seed")
        if given is not None and not harnesses:
            # Histories that are told step by step print what happened themselves.
            report.sections.append(("seed", f"seed {given} (repeat it with FAULTS_SEED={given})"))
    return report
