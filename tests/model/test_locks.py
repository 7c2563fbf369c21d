"""No two kinds of transactions wait for each other: their orders of locking, read from the source, have no cycle."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.model.locks import Kind, cycle, disordered, edges, kinds, locks_of, unread

UNORDERED = {
    # Only from EditAttempts.count, by whoever has the posts of these edits locked in its own transaction.
    ("worker.attempts", "edits"),
    # Each lease is one worker's: rows meet another worker only where a lease ran out just then, and PostgreSQL ends one
    # of the two, which is tried again.
    ("worker.webhooks", "webhook_events"),
    # One person's command, on jobs that ended long ago and that nothing else writes.
    ("shared.store.retention.sweep", "reschedules"),
    ("shared.store.retention.sweep", "reschedule_chunks"),
}

Plant = Callable[[str], ModuleType]


@cache
def product() -> tuple[Kind, ...]:
    return tuple(kinds())


def test_no_cycle_in_the_orders_of_locking() -> None:
    found = edges(list(product()))
    assert cycle(found) == []
    orders = {(edge.held, edge.wanted) for edge in found}
    assert {("posts", "edits"), ("posts", "publish_attempts"), ("posts", "reschedules")} <= orders
    assert len(product()) > 25


def test_every_statement_that_locks_was_seen_in_a_transaction() -> None:
    # A pattern that statements are made of is no statement.
    assert {name for name, _ in unread(list(product()))} <= {"shared.store.posts._LOCK"}


def test_rows_of_one_table_are_locked_in_one_order_or_by_whoever_has_their_post() -> None:
    found = {(kind.partition(":")[0], lock.what) for kind, lock in disordered(list(product()))}
    assert found == UNORDERED


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    """Makes a module of the product's own kind out of source text."""

    def planted(source: str) -> ModuleType:
        head = "from shared.store.db import autocommit_relaxed, transaction\n"
        head += "from shared.store import claims, edits, posts, publish_attempts\n\n"
        file = tmp_path / "planted.py"
        file.write_text(head + source)
        spec = importlib.util.spec_from_file_location("worker.planted", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["worker.planted"] = module
        spec.loader.exec_module(module)
        return module

    yield planted
    sys.modules.pop("worker.planted", None)


def test_a_planted_cycle_is_found(plant: Plant) -> None:
    module = plant(
        """
def backwards(ends, ids):
    with transaction() as tx:
        edits.finalize_edits(tx, ends)
        for post_id in ids:
            posts.lock_posts(tx, [post_id], "wait")
"""
    )
    found = cycle(edges([*product(), *kinds([module])]))
    assert {(edge.held, edge.wanted) for edge in found} == {("posts", "edits"), ("edits", "posts")}
    assert any(edge.kind.startswith("worker.planted:") for edge in found)


def test_a_cycle_through_another_function_and_three_tables_is_found(plant: Plant) -> None:
    module = plant(
        """
def backwards(tx, ends, ids):
    with transaction() as tx:
        publish_attempts.finish_attempts(tx, ends)
        further(tx, ids)


def further(tx, ids):
    return posts.lock_posts(tx, ids, "wait")
"""
    )
    found = cycle(edges([*product(), *kinds([module])]))
    assert ("publish_attempts", "posts") in {(edge.held, edge.wanted) for edge in found}


@pytest.mark.parametrize(
    "source",
    [
        'def f(tx, ids):\n    with transaction() as tx:\n        posts.lock_posts(tx, ids, "wait")\n',
        (
            "def f(tx, ends):\n    with autocommit_relaxed() as tx:\n        edits.finalize_edits(tx, ends)\n"
            '        posts.lock_posts(tx, [], "wait")\n'
        ),
    ],
    ids=["one table", "nothing is kept where each statement commits"],
)
def test_what_cannot_close_a_cycle_closes_none(plant: Plant, source: str) -> None:
    assert cycle(edges([*product(), *kinds([plant(source)])])) == []


def test_posts_that_are_written_without_their_lock_are_found(plant: Plant) -> None:
    module = plant("def f(ids):\n    with transaction() as tx:\n        claims.take_claims(tx, ids, 1.0)\n")
    assert [lock.what for _, lock in disordered(kinds([module]))] == ["posts"]


@pytest.mark.parametrize(
    ("sql", "locks"),
    [
        ("SELECT 1 FROM posts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", [("posts", True, True)]),
        ("SELECT 1 FROM posts WHERE id = ANY($1) FOR UPDATE", [("posts", True, False)]),
        ("SELECT 1 FROM posts WHERE id = ANY($1) FOR UPDATE SKIP LOCKED", [("posts", False, False)]),
        ("UPDATE edits SET a = 1 WHERE id = :id", [("edits", True, True)]),
        ("UPDATE edits e SET a = 1 FROM unnest($1) r(id) WHERE e.id = r.id", [("edits", True, False)]),
        ("WITH a AS (DELETE FROM edits WHERE id = $1) UPDATE posts SET a = 1 WHERE id = $2",
         [("edits", True, True), ("posts", True, True)]),
        ("INSERT INTO edits (id) VALUES ($1)", []),
        ("INSERT INTO keys (id) VALUES ($1) ON CONFLICT DO NOTHING", [("keys", True, True)]),
        ("SELECT pg_advisory_xact_lock(7342, 1)", [("advisory 7342", True, True)]),
        ("SELECT pg_try_advisory_xact_lock(7341, 0)", [("advisory 7341", False, True)]),
        ("-- UPDATE posts\nSELECT 1 FROM posts", []),
    ],
)  # fmt: skip
def test_what_a_statement_locks(sql: str, locks: list[tuple[str, bool, bool]]) -> None:
    assert [(lock.what, lock.waits, lock.ordered) for lock in locks_of(sql)] == locks
