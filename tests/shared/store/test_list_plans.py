"""Every list of the operators' pages and of the command line comes from an index, with ten million rows as with few.

The tables hold some thousand rows. Their statistics say ten million, and the planner believes them.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, create_engine, pool, text

from shared.domain.plurals import MANY
from shared.local.postgres import PostgreSQL
from shared.store import (
    acts,
    due_posts,
    edit_lists,
    failed_posts,
    hold_lists,
    late,
    mending,
    operator_actions,
    overview,
    reschedule_neighbours,
    reschedule_warnings,
    reschedules,
    scope_holds,
)
from shared.store.edit_lists import EditFilter
from tests.conftest import TEMPLATE

NOW = datetime.now(UTC)
TABLES = ("edits", "posts", "reschedules", "webhook_events", "publish_attempts", "acts")
LARGE = {*TABLES}
ROWS = 10_000_000


@pytest.fixture(scope="module")
def engine(postgres: PostgreSQL) -> Iterator[Engine]:
    """Rows of every state, and statistics that say that there are ten million of them in each table."""
    engine = create_engine(postgres.create_database("operators_plans", template=TEMPLATE), poolclass=pool.NullPool)
    with engine.begin() as tx:
        for statement in _FILL:
            tx.execute(text(statement), {"now": NOW})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        for table in TABLES:
            tx.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        tx.execute(text(f"VACUUM ANALYZE {', '.join(TABLES)}"))
        for table in TABLES:
            _say_large(tx, table)
    yield engine
    engine.dispose()
    postgres.drop_database("operators_plans")


def _say_large(tx: Connection, table: str) -> None:
    """Ten million rows by the statistics of a table, and its indexes in proportion."""
    relations = tx.execute(
        text("""
            SELECT CAST(c.relname AS text), c.reltuples / greatest(1, t.reltuples) FROM pg_class t
            JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid
            WHERE t.relname = :table UNION ALL SELECT CAST(:table AS text), 1"""),
        {"table": table},
    ).all()
    for name, share in relations:
        tx.execute(
            text("""
                SELECT pg_restore_relation_stats('schemaname', CAST('public' AS text), 'relname', CAST(:name AS text),
                    'reltuples', CAST(:rows AS real))"""),
            {"name": name, "rows": ROWS * float(share)},
        )


_FILL = (
    """
    INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, scheduled_time,
        status, created_at, posted_at, failure_reason, failed_at, claim_kind, claim_token, claim_expires_at)
    SELECT 'post_' || g, 'ws_' || g % 3, 'acc_' || g % 50, 'tiktok', 'video', '"https://cdn.example.com/a.mp4"',
        repeat('x', 80), :now + (g - 9000) * interval '1 minute',
        CASE WHEN g % 100 = 1 THEN 'failed' WHEN g % 3 = 0 THEN 'posted' WHEN g % 100 = 2 THEN 'pending_render'
            ELSE 'generated' END, :now - g * interval '1 second', CASE WHEN g % 100 <> 1 AND g % 3 = 0 THEN :now END,
        CASE WHEN g % 100 = 1 THEN 'refused' END, CASE WHEN g % 100 = 1 THEN :now END,
        CASE WHEN g % 300 = 5 AND g % 3 <> 0 THEN 'publish' END, CASE WHEN g % 300 = 5 THEN 'clm_' || g END,
        CASE WHEN g % 300 = 5 THEN :now END
    FROM generate_series(1, 10000) g""",
    """
    INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, api_key_id, request_id, reschedule_id,
        created_at, status, finalized_at, revision, error_code, error_message)
    SELECT 'edit_' || lpad(CAST(g AS text), 8, '0'), 'post_' || g % 4000, 'ws_' || g % 3, '{}', 'name', 'key_' || g % 9,
        'req_' || g, CASE WHEN g % 4 = 0 THEN 'rsch_' || g % 10 END, :now - (20000 - g) * interval '1 second',
        s.status, CASE WHEN s.status <> 'queued' THEN :now END, 1,
        CASE WHEN s.status IN ('rejected', 'failed') THEN 'internal' END, s.status
    FROM generate_series(1, 20000) g CROSS JOIN LATERAL (
        SELECT CASE WHEN g % 4 = 0 THEN 'applied' WHEN g % 200 = 1 THEN 'failed' WHEN g % 200 = 3 THEN 'rejected'
            WHEN g % 400 = 5 THEN 'queued' ELSE 'applied' END AS status) s""",
    """
    INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, request_id, plan, status, finished_at, total,
        chunks, applied)
    SELECT 'rsch_' || g, 'ws_' || g % 3, 'key', 'name', 'req_job_' || g, '{"shift": "P1D"}',
        CASE WHEN g % 500 = 0 THEN 'running' ELSE 'done' END, CASE WHEN g % 500 <> 0 THEN :now END, 1, 1,
        CASE WHEN g % 500 <> 0 THEN 1 ELSE 0 END
    FROM generate_series(1, 3000) g""",
    """
    INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, finished_at)
    SELECT 'evt_' || g, 'ws_1', 'post_' || g % 4000, 'edit.applied', '{}',
        CASE WHEN g % 500 = 0 THEN 'dead' ELSE 'delivered' END, :now
    FROM generate_series(1, 5000) g""",
    """
    INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token,
        started_at, finished_at, outcome)
    SELECT 'post_' || g, 1, 'pub_' || g, '{}', 1, 'clm_' || g, :now, :now, 'done' FROM generate_series(1, 5000) g""",
    """
    INSERT INTO acts (actor, action, subject, subject_id, workspace_id, from_state, before)
    SELECT 'kim', 'requeue', 'edit', 'edit_' || g, 'ws_1', 'failed', '{}' FROM generate_series(1, 5000) g""",
)

GIVEN: dict[str, Any] = {
    "status": "applied",
    "post_id": "post_7",
    "workspace_id": "ws_1",
    "accounts": ("acc_1",),
    "key": "key_1",
    "request_id": "req_7",
    "error": "boom",
    "since": NOW - timedelta(hours=1),
    "until": NOW,
    "job_id": "rsch_4",
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def explained(tx: Connection, statement: TextClause, bound: dict[str, Any]) -> list[dict[str, Any]]:
    plan = tx.execute(text(f"EXPLAIN (FORMAT JSON) {statement}"), bound).scalar_one()
    return list(nodes(plan[0]["Plan"]))


def reads_little(found: list[dict[str, Any]], index: str | None = None) -> None:
    """No table is read as a whole, and nothing that has no bound is sorted."""
    whole = [node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"]
    assert not LARGE.intersection(whole), found
    if index is not None:
        assert index in [node.get("Index Name") for node in found], found


def of_edits() -> Iterator[EditFilter]:
    """Every two filters together, and every state."""
    for count in range(3):
        for names in combinations(GIVEN, count):
            yield EditFilter(**{name: GIVEN[name] for name in names})
    for status in ("failed", "rejected", "queued"):
        yield EditFilter(status=status)
        for name in GIVEN.keys() - {"status"}:
            yield EditFilter(**{"status": status, name: GIVEN[name]})


def test_every_list_of_edits_comes_from_its_index_in_order_whatever_the_filter(engine: Engine) -> None:
    with engine.connect() as tx:
        tx.execute(edit_lists._IN_ORDER)
        for wanted in of_edits():
            path = edit_lists._path(wanted)
            if path is None:
                continue
            first, middle = ("edit_00000001", "edit_00015000") if path.column == "id" else (1, 15_000)
            for after, end in ((None, None), (middle, None), (middle, first)):
                given = wanted.given() | edit_lists._bounds(path, wanted, after)
                given |= {"looked_at": edit_lists.LOOKED_AT, "limit": 51, "end": end}
                shape = frozenset(name for name in ("after", "from_id", "end") if given.get(name) is not None)
                page = edit_lists._statement(path, frozenset(wanted.given()), shape)
                for statement in (page, edit_lists._end_statement(path, shape - {"end"})):
                    found = explained(tx, statement, given)
                    reads_little(found, path.index)
                    scan = next(node for node in found if node.get("Index Name") == path.index)
                    assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}, (wanted, scan)
                    names = {node["Node Type"] for node in found}
                    # Of what the tail of a look holds, at most a quarter of LOOKED_AT.
                    assert statement is not page or not {"Sort", "Incremental Sort"} & names, wanted


def test_the_queue_is_put_in_order_from_its_own_index(engine: Engine) -> None:
    with engine.connect() as tx:
        for wanted in of_edits():
            if edit_lists._path(wanted) is None:
                given = wanted.given() | {"looked_at": edit_lists.QUEUE_LOOKED_AT, "limit": 51, "after": -1}
                found = explained(tx, edit_lists._queue_statement(frozenset(wanted.given())), given)
                reads_little(found, "ix_edits_queue")
        reads_little(explained(tx, edit_lists._QUEUED, {"looked_at": 7}), "ix_edits_queue")


def test_what_is_mended_is_chosen_by_the_indexes_of_its_state(engine: Engine) -> None:
    with engine.connect() as tx:
        for wanted in of_edits():
            given = wanted.given() | {"up_to": 9_000, "looked_at": mending.LOOKED_AT, "limit": 1001, "after": -1}
            names = frozenset(wanted.given()) | {"up_to"}
            for status in ("failed", "queued"):
                index = "ix_edits_failed" if status == "failed" else "ix_edits_queue"
                chosen = mending._chosen_statement(names | {"status"}, status)
                reads_little(explained(tx, chosen, given | {"status": status}), index)
            grouped = mending._groups_statement(names | {"status"})
            reads_little(explained(tx, grouped, given | {"status": "failed"}), "ix_edits_failed")


DUE = {"within": timedelta(hours=24), "workspace": "ws_1", "account": None, "limit": 50}
SCOPE = {"workspace": "ws_1", "account": "acc_1", "limit": 1000}
ALL_FAILED = failed_posts._ALL | {"looked_at": failed_posts.LOOKED_AT, "limit": 100, "harmless": ["done"]}
OTHERS: list[tuple[str, TextClause, dict[str, Any]]] = [
    ("pk_edits", operator_actions._ONE, {"id": "edit_00000007"}),
    ("ix_edits_post", operator_actions._NEWER, {"post": "post_7", "seq": 5, "limit": 200, "names": ["caption"]}),
    ("ix_edits_failed", mending._MORE, {"looked_at": mending.LOOKED_AT}),
    ("ix_edits_failed", mending._LAST_LOOKED_AT, {"looked_at": mending.LOOKED_AT, "after": -1}),
    ("pk_edits", mending._SOME, {"ids": ["edit_00000007"]}),
    ("ix_edits_post", mending._NEWER, {
        "rows": '[{"edit": "edit_1", "post": "post_7", "seq": 1, "names": ["caption"]}]', "limit": 50,
    }),
    ("ix_edits_request", operator_actions._FIND, {"ids": ["post_7"], "requests": ["req_7"]}),
    ("ix_reschedules_request", operator_actions._FIND, {"ids": ["post_7"], "requests": ["req_7"]}),
    ("pk_posts", operator_actions._POSTS, {
        "status": "failed", "workspace": "ws_1", "account": "acc_1", "after": "z", "looked_at": 20_000, "limit": 51,
    }),
    ("pk_posts", operator_actions._POSTS_END, {"after": "z", "looked_at": 20_000}),
    ("ix_edits_failed", overview._SUMMARY, {"many": MANY + 1, "late": 10.0}),
    ("pk_edits", overview._MINUTES, {"floors": ["edit_1"], "ends": ["edit_2"], "sample": 100}),
    ("pk_publish_attempts", overview._LATENESS, {"limit": 2000, "since": NOW}),
    ("pk_reschedules", overview._JOB, {"id": "rsch_7"}),
    ("pk_reschedules", overview._JOBS, {"before": "z", "limit": 51}),
    ("ix_reschedules_live", overview._LIVE_JOBS, {"limit": 51}),
    ("ix_publish_attempts_post", overview._TRIES, {"post": "post_7", "limit": 50}),
    ("ix_acts_subject", acts._OF, {"id": "edit_7", "limit": 50}),
    ("ix_posts_free", late._LATE, {"limit": 200, "late": 10.0}),
    ("ix_posts_free", scope_holds._UNDER_A_HOLD, {"limit": 1000}),
    ("ix_posts_free", scope_holds._OVERDUE, SCOPE),
    ("ix_posts_claims", scope_holds._GOING_OUT, SCOPE),
    ("ix_posts_held", scope_holds._MISSED, SCOPE | {"passed": ["post_7"]}),
    ("ix_posts_held", hold_lists._HELD_POSTS, {"limit": 201}),
    ("ix_posts_unrendered", late._LATE, {"limit": 200, "late": 10.0}),
    *[(f"ix_posts_{name}", due_posts._DUE, DUE) for name in ("due", "unrendered", "claims")],
    *[(f"ix_posts_{name}", due_posts._HELD, DUE) for name in ("due", "unrendered", "claims")],
    ("ix_posts_claims", late._LATE, {"limit": 200, "late": 10.0}),
    ("pk_posts", reschedule_neighbours._ACCOUNTS, {"ids": ["post_7"]}),
    ("ix_posts_schedule", reschedule_neighbours._NEIGHBOURS, {
        "workspace": "ws_1", "accounts": ["acc_1", "acc_2"], "begins": [NOW, NOW], "ends": [NOW, NOW],
    }),
    ("pk_reschedules", reschedules._ENDED_AMONG, {"ids": ["rsch_7"]}),
    *[
        (
            "ix_posts_schedule",
            statement,
            {"job": "rsch_7", "workspace": "ws_1", "accounts": ["acc_1"], "prefix": "edit_7"},
        )
        for statement in reschedule_warnings._STATEMENTS.values()
    ],
    ("ix_posts_failed", failed_posts._GROUPS, ALL_FAILED),
    ("ix_posts_failed", failed_posts._CLASSES, ALL_FAILED),
    ("ix_posts_failed", failed_posts._MORE, ALL_FAILED),
    ("ix_posts_failed", failed_posts._FAILED, ALL_FAILED | {"ids": None, "limit": 51}),
    ("ix_posts_failed", failed_posts._GROUP, ALL_FAILED | {"group": "refused"}),
]  # fmt: skip


@pytest.mark.parametrize(("index", "statement", "given"), OTHERS, ids=[index for index, _, _ in OTHERS])
def test_every_other_list_comes_from_its_index(
    engine: Engine, index: str, statement: TextClause, given: dict[str, Any]
) -> None:
    with engine.connect() as tx:
        reads_little(explained(tx, statement, given), index)


def test_a_list_without_its_index_is_seen(engine: Engine) -> None:
    """What the other tests rest on: the planner believes the statistics, and reads a table as a whole without one."""
    with engine.connect() as tx:
        everything = explained(tx, text("SELECT id FROM edits WHERE requested_by = :name"), {"name": "name"})
        assert max(node["Plan Rows"] for node in everything) > ROWS / 2
        with pytest.raises(AssertionError):
            reads_little(everything)


def test_each_index_of_the_lists_is_asked_for_somewhere() -> None:
    paths = {one for wanted in of_edits() if (one := edit_lists._path(wanted)) is not None}
    assert paths == set(edit_lists._PATHS.values())
    assert all(re.fullmatch(r"(ix|pk)_\w+", index) for index, _, _ in OTHERS)
