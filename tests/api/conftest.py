"""The API is tested from outside: one running stack for each module, posts of its own for each test."""

from collections.abc import Iterator
from itertools import count

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests.conftest import TEMPLATE, empty_database
from tests.stack import Running, running
from tests.watchdog import held_up

numbers = count(1)


@pytest.fixture(scope="module")
def servers(postgres: PostgreSQL, valkey: Valkey) -> tuple[str, str]:
    """The URLs of a database and of a Valkey database for one module."""
    number = next(numbers)
    return postgres.create_database(f"api_{number}", template=TEMPLATE), empty_database(valkey)


@pytest.fixture(scope="module")
def stack(servers: tuple[str, str]) -> Iterator[Running]:
    with running(*servers, "edits") as stack:
        yield stack


@pytest.fixture(autouse=True)
def _nothing_held_the_event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test of a stack: no request of it stopped all others for longer than 250 ms."""
    api = request.getfixturevalue("stack").api if "stack" in request.fixturenames else None
    before = len(held_up(api))
    yield
    assert held_up(api)[before:] == []
