"""Batches of the largest edits: each is applied, in bounded steps, and a batch that fails is retried in another way."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.store import batches as batches_store
from shared.store import db
from tests import factories
from worker import batch_limits
from worker.apply import Applied, apply_edits

CAPTION = "🎉" * 1100
URLS = [f"https://cdn.example.com/{number:02}/{'x' * 2015}" for number in range(35)]


def slides(urls: list[str] = URLS) -> dict[str, Any]:
    return {"contentType": "slides", "contentUrl": urls}


def drained(posts: list[str], at_most: int = 60) -> list[Applied]:
    """What was done in task after task, until nothing is left."""
    done: list[Applied] = []
    while posts:
        assert len(done) < at_most
        done.append(apply_edits(posts))
        posts = done[-1].follow_ups.edits
    return done


def queued(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM edits WHERE status = 'queued'")).scalar_one())


@pytest.mark.parametrize(
    ("posts", "edits", "changes"),
    [(500, 1, {"caption": CAPTION}), (150, 1, slides()), (1, 200, slides()), (1, 1000, {"caption": CAPTION})],
)
def test_the_largest_edits_are_applied_in_tasks_that_are_bounded_by_bytes(
    engine: Engine, posts: int, edits: int, changes: dict[str, Any]
) -> None:
    with engine.begin() as tx:
        ids = [factories.slides(tx, render_as_video=False, status="generated") for _ in range(posts)]
        for _ in range(edits):
            for post_id in ids:
                factories.edit(tx, post_id, changes)
    done = drained(ids)
    ends = [end for one in done for end in one.results]
    assert len(ends) == len({end.id for end in ends}) == posts * edits
    assert queued(engine) == 0
    for one in done:
        written = sum(len(end.result or "") + len(str(end.before)) for end in one.results)
        assert written < batch_limits.BYTES_A_TASK
        assert sum(edit.size for edit in one.read) < batch_limits.BYTES_A_TASK + 128 * 1024


def test_many_posts_of_large_contents_are_read_some_at_a_time(engine: Engine) -> None:
    with engine.begin() as tx:
        content = '["' + '", "'.join(URLS) + '"]'
        ids = [factories.slides(tx, content_url=content, status="generated", render_as_video=False) for _ in range(120)]
        for post_id in ids:
            factories.edit(tx, post_id, {"caption": "second"})
        idle = factories.slides(tx, content_url=content, status="generated", render_as_video=False)
    done = drained([*ids, idle])
    assert sum(len(one.results) for one in done) == 120
    assert max(len(one.results) for one in done) <= 50
    assert not any(one.follow_ups.contended for one in done)
    assert {factories.row(engine, "posts", post_id).caption for post_id in ids} == {"second"}
    assert factories.row(engine, "posts", ids[0]).content_url == URLS


def test_what_an_edit_made_of_a_post_is_stored_once(engine: Engine) -> None:
    with engine.begin() as tx:
        post_id = factories.slides(tx, status="generated", render_as_video=False)
        edit = factories.edit(tx, post_id, slides())
    apply_edits([post_id])
    stored = factories.row(engine, "edits", edit)
    assert (stored.after, stored.result.count(URLS[0])) == (None, 1)


def failing(error: type[psycopg.Error], batches: list[int]) -> Any:
    """A settle that PostgreSQL ends each time that it is asked for more than one edit; how many each had."""
    settle = batches_store.finalize

    def fail(tx: Any, writes: Any, ends: Any, **given: Any) -> None:
        batches.append(len(ends))
        if len(ends) > 1:
            raise DBAPIError.instance(None, None, error("too much"), psycopg.Error)
        settle(tx, writes, ends, **given)

    return fail


@pytest.mark.parametrize("on_record", [False, True], ids=["counted before", "on record"])
@pytest.mark.parametrize("error", [psycopg.errors.TransactionTimeout, psycopg.errors.ProgramLimitExceeded])
def test_a_batch_that_fails_again_and_again_is_halved_then_run_one_by_one_and_costs_no_attempt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error], on_record: bool
) -> None:
    with engine.begin() as tx:
        ids = [factories.post(tx) for _ in range(6)]
        edits = [factories.edit(tx, post_id, {"caption": "second"}) for post_id in ids]
    batches: list[int] = []
    monkeypatch.setattr(batches_store, "finalize", failing(error, batches))
    for _ in range(3):
        with pytest.raises(DBAPIError):
            apply_edits(ids, on_record=on_record)
    assert batches == [6, 6, 3]
    for _ in range(6):
        try:
            drained(ids)
        except DBAPIError:
            continue
        break
    assert batches[3:4] == [2]
    assert {factories.row(engine, "posts", post_id).caption for post_id in ids} == {"second"}
    assert {factories.row(engine, "edits", edit).attempts for edit in edits} == {1}


def test_an_edit_that_postgresql_refuses_alone_is_failed_and_the_rest_of_its_queue_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        post_id = factories.post(tx)
        poison = factories.edit(tx, post_id, {"caption": "poison"})
        behind = factories.edit(tx, post_id, {"caption": "behind"})
    settle = batches_store.finalize

    def fail(tx: Any, writes: Any, ends: Any, **given: Any) -> None:
        if any(write.after.caption in ("poison", "behind") for write in writes) and poison in {end.id for end in ends}:
            raise DBAPIError.instance(None, None, psycopg.errors.OutOfMemory("too much"), psycopg.Error)
        settle(tx, writes, ends, **given)

    monkeypatch.setattr(batches_store, "finalize", fail)
    for _ in range(20):
        try:
            drained([post_id])
        except DBAPIError:
            continue
        break
    stored = factories.row(engine, "edits", poison)
    assert (stored.status, stored.error_code, stored.attempts) == ("failed", "internal", 5)
    assert factories.row(engine, "edits", behind).status == "applied"


@pytest.mark.parametrize("on_record", [False, True], ids=["counted before", "on record"])
def test_a_lost_connection_defers_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch, on_record: bool) -> None:
    with engine.begin() as tx:
        post_id = factories.post(tx)
        edit = factories.edit(tx, post_id, {"caption": "second"})

    def lose(tx: Any, *_: Any, **__: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(batches_store, "finalize", lose)
    for _ in range(4):
        with pytest.raises(DBAPIError) as lost:
            apply_edits([post_id], on_record=on_record)
        assert db.is_transient(lost.value)
    stored = factories.row(engine, "edits", edit)
    assert (stored.attempts, stored.deferrals) == (0, 0)
