"""What `redraft doctor` finds in one database."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.cli import probes
from shared.cli.facts import Facts, Finding
from shared.cli.findings import diagnose
from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def found(engine: Engine) -> dict[str, Finding]:
    """What is wrong with the database."""
    database = probes._database(engine.url.render_as_string(hide_password=False))
    return {finding.code: finding for finding in diagnose(Facts(database, None, None))}


def run(engine: Engine, statement: str, **given: Any) -> None:
    with engine.begin() as tx:
        tx.execute(text(statement), given)
