"""Who sends most: sums of a bounded number of edits."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from shared.domain import waits
from shared.domain.ids import new_id
from shared.store import posts as posts_store
from shared.store import senders
from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def edits(tx: Connection, count: int, key: str, *, waits: bool, ago: float = 1.0, job: str | None = None) -> None:
    now = posts_store.clock(tx) - timedelta(seconds=ago)
    for _ in range(count):
        tx.execute(
            text("""INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, created_at, status,
                        finalized_at, revision, reschedule_id)
                    VALUES (:id, 'post_1', 'ws_test', '{}', :key, :at, :status, :end, :revision, :job)"""),
            {
                "id": new_id("edit", now.timestamp()), "key": key, "at": now, "job": job,
                "status": "queued" if waits else "applied", "end": None if waits else now,
                "revision": None if waits else 2,
            },
        )  # fmt: skip


def test_the_sums_are_by_workspace_and_key_the_busiest_first(engine: Engine) -> None:
    with engine.begin() as tx:
        edits(tx, 5, "importer", waits=True)
        edits(tx, 3, "phone", waits=False)
        edits(tx, 2, "phone", waits=False, ago=300)
        edits(tx, 1, "phone", waits=False, job="rsch_1")
        found = senders.busiest(tx, posts_store.clock(tx))
    assert [(one.workspace, one.key, one.moves, one.accepted, one.waiting) for one in found.senders] == [
        ("ws_test", "importer", False, 5, 5),
        ("ws_test", "phone", False, 3, 0),
        ("ws_test", "phone", True, 1, 0),
    ]
    assert not found.truncated
    assert found.flood is None


@pytest.mark.parametrize(("phone", "flood"), [(4, "importer"), (5, None)])
def test_a_key_with_most_of_what_waits_is_the_flood(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, phone: int, flood: str | None
) -> None:
    monkeypatch.setattr(waits, "FLOOD", 5)
    with engine.begin() as tx:
        edits(tx, 5, "importer", waits=True)
        edits(tx, phone, "phone", waits=True)
        edits(tx, 9, "phone", waits=False)
        found = senders.busiest(tx, posts_store.clock(tx))
    assert (found.flood and found.flood.key, found.looked_at) == (flood, 5 + phone)


@pytest.mark.parametrize(
    ("phone", "job", "flood"), [(4, None, "importer"), (5, None, None), (0, None, None), (4, "rsch_1", None)]
)
def test_a_key_that_sends_most_is_the_flood_though_nothing_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, phone: int, job: str | None, flood: str | None
) -> None:
    """Red before: a key with 64 connections sent 500 edits a second, which the workers took, and it had no name."""
    monkeypatch.setattr(senders, "RUSH", 0.05)
    with engine.begin() as tx:
        edits(tx, 5, "importer", waits=False, job=job)
        edits(tx, phone, "phone", waits=False)
        edits(tx, 9, "phone", waits=False, ago=300)
        found = senders.busiest(tx, posts_store.clock(tx)).flood
    assert (found and found.key) == flood
    assert found is None or found.a_second == pytest.approx(5 / 60)


def test_of_a_flood_a_bounded_number_is_looked_at_and_it_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "LOOKED_AT", 4)
    with engine.begin() as tx:
        edits(tx, 9, "importer", waits=True, ago=5)
        now = posts_store.clock(tx)
        found = senders.busiest(tx, now)
    [one] = found.senders
    assert (one.accepted, one.waiting, found.truncated) == (4, 4, True)
    assert timedelta(seconds=4) < now - found.since < timedelta(seconds=8)


def test_no_edits_have_no_senders(engine: Engine) -> None:
    with engine.begin() as tx:
        assert senders.busiest(tx, posts_store.clock(tx)).senders == []
