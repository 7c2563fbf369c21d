"""Worker rooms are tested in this process, on a real database and a real Valkey."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine
