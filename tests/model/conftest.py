"""A database for the tests that compare the model with rows."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine
