"""`redraft edits` as a script runs it, and edits for it: queued, applied and failed."""

from typing import Any

from sqlalchemy import Engine, text

from shared.cli import edits as command
from tests import factories
from tests.factories import FAILED
from tests.shared.cli.typed import Typed
from worker import apply

redraft = Typed(command.app)
answer = redraft.as_json


def post(engine: Engine, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, **columns)


def edit(engine: Engine, post_id: str, changes: dict[str, Any], state: str = "", **given: Any) -> str:
    with engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, changes, **given)
        if state:
            tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def failed(engine: Engine, post_id: str, changes: dict[str, Any], **given: Any) -> str:
    return edit(engine, post_id, changes, FAILED, **given)


def applied(engine: Engine, post_id: str, changes: dict[str, Any]) -> str:
    """An edit that the worker's own code has applied."""
    edit_id = edit(engine, post_id, changes)
    apply.apply_edits([post_id])
    assert factories.row(engine, "edits", edit_id).status == "applied"
    return edit_id
