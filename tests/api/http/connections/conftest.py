"""A running stack for each module, with two workspaces: what belongs to one must never reach the other."""

from collections.abc import Iterator
from itertools import count

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.http.connections.peers import OTHER
from tests.conftest import TEMPLATE, empty_database
from tests.stack import Running, running

numbers = count(1)


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    number = next(numbers)
    url = postgres.create_database(f"connections_{number}", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits") as stack:
        with stack.engine.begin() as tx:
            factories.workspace(tx, OTHER.workspace, OTHER.suffix, OTHER.secret)
        yield stack
