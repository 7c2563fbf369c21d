"""Race tests run the workers' code in threads of this process, on a real database and a real Valkey."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from shared.store import db
from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        with db.engine().connect(), db.autocommit_relaxed():  # made once, before threads ask for it
            pass
        yield engine


@pytest.fixture
def due(engine: Engine) -> str:
    with engine.begin() as tx:
        return factories.post(tx, scheduled_time=factories.soon(-5))
