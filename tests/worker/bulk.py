"""Posts for bulk jobs, and rows that a person has locked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from shared.store import reschedule_freezes
from tests import factories, jobs

ALL = {"all": True}


@pytest.fixture
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reschedule_freezes, "CHUNK", 3)


def posts(engine: Engine, count: int, **columns: Any) -> list[str]:
    with engine.begin() as tx:
        return [factories.post(tx, **columns) for _ in range(count)]


@contextmanager
def locked_by_a_person(engine: Engine, *ids: str) -> Iterator[Connection]:
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": list(ids)})
        yield person


@contextmanager
def edits_locked_by_a_person(engine: Engine, *ids: str) -> Iterator[Connection]:
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM edits WHERE id = ANY(:ids) FOR UPDATE"), {"ids": list(ids)})
        yield person


def moved_once(engine: Engine, job: str, ids: list[str]) -> bool:
    revisions = [factories.row(engine, "posts", post).revision for post in ids]
    audited = [audit.post_id for audit in jobs.audit(engine, job)]
    return revisions == [2] * len(ids) and sorted(audited) == sorted(ids)
