"""An undo races an edit over real connections: it never overwrites what it could not see."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.submission import forecast, undo
from api.submission.recording import Recorded
from api.submission.undo import Wanted
from shared.domain.errors import Conflict, Unavailable
from shared.domain.ids import new_id
from shared.store import db, later_edits
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store.edits import NewEdit
from tests import factories
from tests.faults.actors import Actor, stopping_points, waits_for_a_lock
from worker import apply
from worker.apply import apply_edits


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine, stopping_points():
        yield engine


def edit(engine: Engine, post: str, caption: str) -> str:
    with engine.begin() as tx:
        return factories.edit(tx, post, {"caption": caption})


def recorded(edit_id: str) -> Recorded:
    new = NewEdit(
        new_id("edit"), "", factories.WORKSPACE, {}, None, factories.KEY_ID, "tests", "req_test",
    )  # fmt: skip
    with db.transaction() as tx:
        return undo.record(tx, Wanted(edit_id, new, False, None, None, None))[0]


def status(engine: Engine, edit_id: str) -> tuple[str, str | None]:
    row = factories.row(engine, "edits", edit_id)
    return row.status, row.error_code


def test_an_undo_behind_more_edits_than_are_looked_at_is_refused_for_now(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "QUEUE_AT_MOST", 2)
    with engine.begin() as tx:
        post = factories.post(tx)
    first = edit(engine, post, "one")
    apply_edits([post])
    with engine.begin() as tx:
        for _ in range(3):
            factories.edit(tx, post, {"soundId": None})
    with pytest.raises(Unavailable, match="More than 2 edits of the post wait"):
        recorded(first)
    apply_edits([post])
    assert recorded(first).created_at is not None


def test_an_edit_that_came_after_the_undo_had_looked_is_not_overwritten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "WAIT_FOR_LOCKS", 10.0)
    with engine.begin() as tx:
        post = factories.post(tx)
    first = edit(engine, post, "one")
    apply_edits([post])
    looked, go_on = threading.Event(), threading.Event()
    insert: Callable[..., Any] = edits_store.insert_edits

    def late(*given: Any) -> Any:
        if not looked.is_set():
            looked.set()
            assert go_on.wait(30)
        return insert(*given)

    monkeypatch.setattr(edits_store, "insert_edits", late)
    with ThreadPoolExecutor(2) as beside:
        undoing = beside.submit(recorded, first)
        assert looked.wait(10)
        second = edit(engine, post, "two")
        winner = Actor(lambda: apply_edits([post]), stop_at="decided")
        assert winner.start() == "decided"
        go_on.set()
        new = undoing.result(timeout=10)
        loser = Actor(lambda: apply_edits([post]))
        lost = beside.submit(loser.start)
        assert "FOR NO KEY UPDATE" in waits_for_a_lock(engine)
        assert not lost.done()
        winner.go_on()
        lost.result(timeout=10)
    assert winner.result().results[0].id == second
    assert [end.id for end in loser.result().results] == [new.edit_id]
    assert (status(engine, second), status(engine, new.edit_id)) == (
        ("applied", None), ("rejected", "precondition_failed"),
    )  # fmt: skip
    assert factories.row(engine, "posts", post).caption == "two"


PLACES = (
    (posts_store, "read_posts"),
    (edits_store, "queued_edits"),
    (later_edits, "touching"),
    (edits_store, "insert_edits"),
)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("room", "name"), PLACES, ids=[name for _, name in PLACES])
def test_wherever_an_edit_comes_in_between_two_looks_of_the_undo_it_is_not_overwritten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, room: Any, name: str, *, applied: bool
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    first = edit(engine, post, "one")
    apply_edits([post])
    look: Callable[..., Any] = getattr(room, name)

    def comes_first(*given: Any, **how: Any) -> Any:
        # What the edit itself and its worker look at is not stopped.
        monkeypatch.setattr(room, name, look)
        edit(engine, post, "two")
        if applied:
            apply_edits([post])
        return look(*given, **how)

    monkeypatch.setattr(room, name, comes_first)
    with suppress(Conflict):
        recorded(first)
    apply_edits([post])
    assert factories.row(engine, "posts", post).caption == "two"


def test_an_edit_that_is_being_applied_stands_in_the_way(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    first = edit(engine, post, "one")
    apply_edits([post])
    second = edit(engine, post, "two")
    worker = Actor(lambda: apply_edits([post]), stop_at="decided")
    assert worker.start() == "decided"
    with pytest.raises(Conflict) as refused:
        recorded(first)
    assert [detail.field for detail in refused.value.details] == [second]
    worker.go_on()
    assert worker.result().results
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM acts")).scalar() == 0


def test_an_edit_with_a_lower_number_that_was_applied_later_stands_in_the_way(engine: Engine) -> None:
    """Two edits are recorded at the same moment, and the one with the lower number is committed last."""
    with engine.begin() as tx:
        post = factories.post(tx)
    with engine.begin() as slow:
        lower = factories.edit(slow, post, {"caption": "lower"})
        higher = edit(engine, post, "higher")
        apply_edits([post])
    apply_edits([post])
    assert factories.row(engine, "posts", post).caption == "lower"
    with pytest.raises(Conflict) as refused:
        recorded(higher)
    assert [detail.field for detail in refused.value.details] == [lower]
    assert status(engine, recorded(lower).edit_id) == ("queued", None)


def test_an_edit_of_another_field_that_is_being_applied_is_counted_in(engine: Engine) -> None:
    """The undo is recorded for the revision that the post will have, and is applied on top."""
    with engine.begin() as tx:
        post = factories.post(tx)
    first = edit(engine, post, "one")
    apply_edits([post])
    with engine.begin() as tx:
        factories.edit(tx, post, {"soundId": "7"})
    worker = Actor(lambda: apply_edits([post]), stop_at="decided")
    assert worker.start() == "decided"
    new = recorded(first)
    worker.go_on()
    assert worker.result().results
    apply_edits([post])
    row = factories.row(engine, "posts", post)
    assert (status(engine, new.edit_id), row.caption, row.sound_id, row.revision) == (
        ("applied", None),
        "first",
        "7",
        4,
    )
