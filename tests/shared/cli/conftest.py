"""One stack for all tests of bulk jobs on the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.shared.cli.rescheduling import numbers, started
from tests.stack import Running


@pytest.fixture(autouse=True)
def _runs_of_this_test_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="package")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    with started(postgres, valkey, "bulk", "edits") as stack:
        yield stack


@pytest.fixture(scope="package")
def idle(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """An API without a worker: a job waits for ever."""
    with started(postgres, valkey) as stack:
        yield stack


@pytest.fixture
def account(stack: Running) -> str:
    with stack.engine.begin() as tx:
        return factories.account(tx, f"acc_{next(numbers):03}")
