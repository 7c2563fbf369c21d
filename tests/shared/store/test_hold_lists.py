"""How much is held, in a sentence for the operators' overview."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, pool, text

from shared.store import hold_lists
from shared.store.hold_lists import Sums
from tests import factories


@pytest.fixture
def tx(database_url: str) -> Iterator[Connection]:
    with create_engine(database_url, poolclass=pool.NullPool).begin() as connection:
        yield connection


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        (Sums(0, 0, 0, 0), ""),
        (Sums(1, 0, 0, 0), "On hold: 1 workspace. What is on hold does not go out. See Holds."),
        (
            Sums(0, 2, 1200, 30),
            (
                "On hold: 2 accounts and 1,200 posts. What is on hold does not go out. "
                "30 of the posts missed their time, and wait for a new one. See Holds."
            ),
        ),
    ],
)
def test_the_sentence_names_what_is_on_hold(sums: Sums, words: str) -> None:
    assert sums.words == words


def test_the_sums_count_each_kind(tx: Connection) -> None:
    factories.workspace(tx)
    held, missed = factories.post(tx), factories.post(tx)
    factories.post(tx)
    tx.execute(text("UPDATE posts SET held_at = now(), held_by = 'kim' WHERE id = :id"), {"id": held})
    tx.execute(
        text("UPDATE posts SET missed_at = now(), missed_revision = schedule_revision WHERE id = :id"), {"id": missed}
    )
    tx.execute(
        text("INSERT INTO holds (workspace_id, account_id, held_at, held_by) VALUES (:w, :a, now(), 'kim')"),
        {"w": factories.WORKSPACE, "a": factories.TIKTOK},
    )
    assert hold_lists.sums(tx) == Sums(0, 1, 2, 1)
