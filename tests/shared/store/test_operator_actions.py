"""Operators' lists go on where they stood, whatever is requeued meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import edit_lists, operator_actions
from shared.store.acts import Actor
from shared.store.db import transaction
from shared.store.edit_lists import EditFilter
from tests import factories

FAILED = "status = 'failed', finalized_at = now(), error_code = 'internal', error_message = 'x'"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


@pytest.mark.parametrize("kind", ["failed", "queued", "post", "all"])
def test_a_page_goes_on_behind_an_edit_that_was_requeued_since(engine: Engine, kind: str) -> None:
    """Its new place is in front of a list of the newest, where all would come twice, and at the end of the queue, where
    the list would end.
    """
    with engine.begin() as tx:
        post = factories.post(tx)
        made = [factories.edit(tx, post, {"caption": str(number)}) for number in range(6)]
        if kind != "queued":
            tx.execute(text(f"UPDATE edits SET {FAILED}"))
    asked = {
        "failed": EditFilter(status="failed"),
        "queued": EditFilter(status="queued"),
        "post": EditFilter(post_id=post),
        "all": EditFilter(),
    }[kind]
    expected = made if kind == "queued" else made[::-1]
    with transaction() as tx:
        page = edit_lists.page(tx, asked, limit=3)
    last = page.edits[-1]
    with engine.begin() as tx:
        tx.execute(text(f"UPDATE edits SET {FAILED} WHERE id = :id"), {"id": last.id})
    with transaction() as tx:
        operator_actions.requeue(tx, last.id, Actor("kim"))
    with transaction() as tx:
        rest = edit_lists.page(tx, asked, page.next_place, 10)
    # One that was requeued comes again only at the end of what waits, where its new place is.
    again = [last.id] if kind == "queued" else []
    assert [edit.id for edit in page.edits + rest.edits] == expected + again


@pytest.mark.parametrize("after", ["edit_1", 7])
def test_a_place_of_another_list_begins_from_the_beginning(engine: Engine, after: Any) -> None:
    with engine.begin() as tx:
        edit = factories.edit(tx, factories.post(tx), {"caption": "one"})
    asked = EditFilter(status="queued" if isinstance(after, str) else None)
    with transaction() as tx:
        assert [one.id for one in edit_lists.page(tx, asked, after).edits] == [edit]
