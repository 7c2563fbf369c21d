"""Attempts that are given back meet other workers at the same edits."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from shared.store import db
from shared.store import edits as edits_store
from shared.store.edits import Owed
from tests import factories


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def test_giving_back_waits_for_no_edit_and_names_what_is_owed_still(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        first, second, ended = (factories.edit(tx, post, {"caption": caption}) for caption in "abc")
        tx.execute(text("UPDATE edits SET attempts = 1"))
        tx.execute(
            text("""UPDATE edits SET status = 'rejected', finalized_at = now(), error_code = 'discarded',
                    error_message = 'so' WHERE id = :id"""),
            {"id": ended},
        )
    owed = [Owed(edit, 0, deferred=False) for edit in (second, first, ended)]
    with engine.begin() as another, db.autocommit_relaxed() as relaxed:
        # Another worker ends the first, and will end the second: were that one held while the first is waited for, the
        # two would wait for each other.
        another.execute(text("SELECT 1 FROM edits WHERE id = :id FOR NO KEY UPDATE"), {"id": first})
        assert edits_store.give_back_attempts(relaxed, owed) == {first}
        another.execute(text("SELECT 1 FROM edits WHERE id = :id FOR NO KEY UPDATE NOWAIT"), {"id": second})
    with db.autocommit_relaxed() as relaxed:
        assert edits_store.give_back_attempts(relaxed, owed) == set()
    assert [factories.row(engine, "edits", edit).attempts for edit in (first, second, ended)] == [0, 0, 1]
