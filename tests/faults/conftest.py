"""A scene for each test, on servers of its own where the test strikes servers; seed and history on failure."""

import os
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, numbers
from tests.faults.scene import Scene
from tests.processes import Processes

MakeScene = Callable[..., Scene]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Fixed for the tests that always run, new each time for the long ones, FAULTS_SEED's where that is set."""
    if given := os.environ.get("FAULTS_SEED"):
        return int(given)
    if request.node.get_closest_marker("faults"):
        return random.randrange(2**32)
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def make_scene(request: pytest.FixtureRequest, processes: Processes, seed: int) -> Iterator[MakeScene]:
    """Makes a scene on the given database and Redis; `make_scene(database_url, redis_url, **environment)`."""
    made: list[Scene] = []

    def make(database_url: str, redis_url: str, **environment: str) -> Scene:
        made.append(Scene(processes, database_url, redis_url, seed, **environment))
        return made[-1]

    request.node.scenes = made
    yield make
    for scene in made:
        scene.http.close()


@pytest.fixture
def scene(make_scene: MakeScene, database_url: str, redis_url: str) -> Scene:
    """A scene on the run's own servers, for faults that strike our processes only."""
    return make_scene(database_url, redis_url)


@pytest.fixture(scope="module")
def engine(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Engine]:
    """This process as a worker on a database of the module's, for histories that are told step by step."""
    number = next(numbers)
    url = postgres.create_database(f"faults_{number}", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch, factories.set_up(patch, url, valkey.url(number)) as engine:
        yield engine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        scenes = getattr(item, "scenes", ())
        for scene in scenes:
            report.sections.append(("seed and history", scene.report()))
        given = getattr(item, "funcargs", {}).get("seed")
        if given is not None and not scenes:
            # Histories that are told step by step print what happened themselves.
            report.sections.append(("seed", f"seed {given} (repeat it with FAULTS_SEED={given})"))
    return report
