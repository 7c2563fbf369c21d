"""Lists stay fast: whatever the filter, a page comes from its index in order, and looks at a bounded number of rows."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, create_engine, pool, text

from shared.local.postgres import PostgreSQL
from shared.store import reads
from tests.conftest import TEMPLATE

NOW = datetime.now(UTC)
POSTS = 30_000
FILTERS: dict[str, Any] = {
    "status": "failed",
    "platform": "instagram",
    "content_type": "slides",
    "account": "acc_7",
    "scheduled_from": NOW + timedelta(minutes=POSTS - 5),
    "scheduled_to": NOW,
}
PLACE = (NOW - timedelta(seconds=POSTS // 2), "post_x")


@pytest.fixture(scope="module")
def engine(postgres: PostgreSQL) -> Iterator[Engine]:
    """30,000 posts of a workspace and 3,000 of another, 40,000 edits; statistics fresh, so that nothing is guessed."""
    engine = create_engine(postgres.create_database("list_plans", template=TEMPLATE), poolclass=pool.NullPool)
    with engine.begin() as tx:
        tx.execute(
            text("""
                INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                    scheduled_time, status, created_at, posted_at, failure_reason)
                SELECT 'post_' || g, CASE WHEN g % 11 = 0 THEN 'ws_small' ELSE 'ws' END, 'acc_' || g % 50, 'tiktok',
                    'video', '"https://cdn.example.com/a.mp4"', repeat('x', 80), :now + g * interval '1 minute',
                    CASE WHEN g % 1000 = 1 THEN 'failed' WHEN g % 3 = 0 THEN 'posted' ELSE 'generated' END,
                    :now - g / 2 * interval '1 second', CASE WHEN g % 1000 <> 1 AND g % 3 = 0 THEN :now END,
                    CASE WHEN g % 1000 = 1 THEN 'refused' END
                FROM generate_series(1, :posts * 11 / 10) g"""),
            {"now": NOW, "posts": POSTS},
        )
        tx.execute(
            text("""
                INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, created_at, status, finalized_at,
                    revision, error_code)
                SELECT 'edit_' || g, 'post_' || g % 4000, 'ws', '{}', 'tests', :now - (40000 - g) * interval '1 second',
                    CASE WHEN g % 5000 = 0 THEN 'rejected' ELSE 'applied' END, :now, 1,
                    CASE WHEN g % 5000 = 0 THEN 'not_found' END
                FROM generate_series(1, 40000) g"""),
            {"now": NOW},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        tx.execute(text("VACUUM ANALYZE posts, edits"))
    yield engine
    engine.dispose()
    postgres.drop_database("list_plans")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def explained(tx: Connection, statement: TextClause, bound: dict[str, Any], *, generic: bool) -> list[dict[str, Any]]:
    """The nodes of a statement's plan, made for its values or, as for one that is prepared, for any."""
    tx.execute(reads._IN_ORDER)
    if not generic:
        plan = tx.execute(text(f"EXPLAIN (FORMAT JSON) {statement}"), bound).scalar_one()
        return list(nodes(plan[0]["Plan"]))
    names = list(dict.fromkeys(re.findall(r"(?<!:):(\w+)", str(statement))))
    numbered = re.sub(r"(?<!:):(\w+)", lambda found: f"${names.index(found[1]) + 1}", str(statement))
    tx.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    tx.exec_driver_sql(f"PREPARE page AS {numbered}")
    values = ", ".join("NULL" if bound[name] is None else f"'{bound[name]}'" for name in names)
    plan = tx.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE page ({values})").scalar_one()
    tx.exec_driver_sql("DEALLOCATE page")
    return list(nodes(plan[0]["Plan"]))


def in_order_from(index: str, found: list[dict[str, Any]]) -> None:
    kinds = [node["Node Type"] for node in found]
    assert not [kind for kind in kinds if "Sort" in kind or "Seq Scan" in kind or "Bitmap" in kind], kinds
    assert [node["Index Name"] for node in found if "Index Name" in node] == [index], kinds


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("workspace", ["ws", "ws_small", "ws_nobody"])
def test_every_page_of_posts_comes_from_the_listing_index_in_order_whatever_the_filter(
    engine: Engine, workspace: str, generic: bool
) -> None:
    with engine.connect() as tx:
        for count in range(len(FILTERS) + 1):
            for names in combinations(FILTERS, count):
                for after, limit in ((None, 100), (PLACE, 100), (PLACE, 1)):
                    bound = {name: FILTERS[name] for name in names} | {"workspace": workspace, "visible": True}
                    wanted = frozenset(bound)
                    bound |= {f"after_{number}": value for number, value in enumerate(after or ())}
                    bound |= {"limit": limit + 1, "looked_at": reads.LOOKED_AT}
                    statement = reads._page_of(reads._POSTS, wanted, after=after is not None, down_to=False)
                    found = explained(tx, statement, bound, generic=generic)
                    in_order_from("ix_posts_listing", found)
                    if after is not None:
                        scan = next(node for node in found if "Index Cond" in node)
                        assert "ROW(created_at, id) <" in scan["Index Cond"], "the cursor is a place in the index"


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize(("sort", "sign"), [("scheduledTime", ">"), ("-scheduledTime", "<")])
def test_every_page_by_time_comes_from_the_index_of_the_schedule_and_begins_at_its_bounds(
    engine: Engine, sort: str, sign: str, generic: bool
) -> None:
    place = (NOW + timedelta(minutes=POSTS // 2), "post_x")
    with engine.connect() as tx:
        for count in range(len(FILTERS) + 1):
            for names in combinations(FILTERS, count):
                for after in (None, place):
                    bound = {name: FILTERS[name] for name in names} | {"workspace": "ws", "visible": True}
                    wanted = frozenset(bound)
                    bound |= {f"after_{number}": value for number, value in enumerate(after or ())}
                    bound |= {"limit": 101, "looked_at": reads.LOOKED_AT}
                    statement = reads._page_of(reads._POSTS_IN[sort], wanted, after=after is not None, down_to=False)
                    found = explained(tx, statement, bound, generic=generic)
                    in_order_from("ix_posts_schedule", found)
                    condition = next(node["Index Cond"] for node in found if "Index Cond" in node)
                    assert (f"ROW(scheduled_time, id) {sign}" in condition) == (after is not None), condition
                    assert ("scheduled_time >= " in condition) == ("scheduled_from" in names), condition
                    assert ("scheduled_time < " in condition) == ("scheduled_to" in names), condition


@pytest.mark.parametrize(
    ("names", "index"),
    [
        ((), "ix_edits_workspace"),
        (("status",), "ix_edits_workspace"),
        (("created_from", "created_to"), "ix_edits_workspace"),
        (("post",), "ix_edits_post"),
        (("post", "status"), "ix_edits_post"),
    ],
)
def test_every_page_of_edits_comes_from_an_index_in_order(engine: Engine, names: tuple[str, ...], index: str) -> None:
    given = {"status": "rejected", "created_from": NOW - timedelta(hours=1), "created_to": NOW, "post": "post_7"}
    bound = {name: given[name] for name in names} | {"workspace": "ws"}
    with engine.connect() as tx:
        for after in (None, (20_000,)):
            statement = reads._page_of(reads._EDITS, frozenset(bound), after=after is not None, down_to=False)
            more = {"after_0": after[0] if after else None, "limit": 101, "looked_at": reads.LOOKED_AT}
            in_order_from(index, explained(tx, statement, bound | more, generic=False))


def test_a_page_reads_no_more_rows_than_it_shows(engine: Engine) -> None:
    with engine.connect() as tx:
        tx.execute(reads._IN_ORDER)
        bound = {"workspace": "ws", "visible": True}
        statement = reads._page_of(reads._POSTS, frozenset(bound), after=False, down_to=False)
        bound |= {"limit": 101, "looked_at": reads.LOOKED_AT}
        plan = tx.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), bound).scalar_one()
        scan = next(node for node in nodes(plan[0]["Plan"]) if "Index Name" in node)
        assert (scan["Actual Rows"], scan.get("Rows Removed by Filter", 0)) == (101, 0)


def walk(engine: Engine, workspace: str, filters: dict[str, Any]) -> tuple[list[str], list[int]]:
    """All ids of a list, by its pages, and how many each page had. A post comes in before each page."""
    seen: list[str] = []
    sizes: list[int] = []
    place: tuple[Any, ...] | None = None
    while True:
        with engine.begin() as tx:
            page = reads.posts_page(tx, workspace, filters, place, 100)
            tx.execute(
                text("""INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                            scheduled_time, status, failure_reason)
                        SELECT 'late_' || gen_random_uuid(), :workspace, 'acc_7', 'tiktok', 'video', '"u"', '', now(),
                            'failed', 'refused'"""),
                {"workspace": workspace},
            )
        seen += [post.facts.id for post in page.items]
        sizes.append(len(page.items))
        if page.next_place is None:
            return seen, sizes
        place = page.next_place


def test_a_rare_filter_gets_short_pages_that_go_on_and_together_hold_everything_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LOOKED_AT", 2_000)
    filters = {"status": "failed", "scheduled_from": NOW}
    with engine.connect() as tx:
        wanted = list(
            tx.execute(
                text("""SELECT id FROM posts WHERE workspace_id = 'ws' AND status = 'failed' AND scheduled_time >= :now
                        ORDER BY created_at DESC, id DESC"""),
                {"now": NOW + timedelta(minutes=1)},
            ).scalars()
        )
    seen, sizes = walk(engine, "ws", filters | {"scheduled_from": NOW + timedelta(minutes=1)})
    assert seen == wanted
    assert len(sizes) >= POSTS // 2_000
    assert max(sizes) < 10, "no page looked at the whole list"


def test_a_rare_filter_by_time_gets_short_pages_that_begin_at_the_bounds(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LOOKED_AT", 2_000)
    filters = {"status": "failed", "scheduled_from": NOW + timedelta(minutes=20_000)}
    wanted = [number for number in range(20_001, POSTS * 11 // 10, 1000) if number % 11]
    for sort, expected in (("scheduledTime", wanted), ("-scheduledTime", wanted[::-1])):
        found: list[int] = []
        sizes: list[int] = []
        place = None
        while not sizes or place is not None:
            with engine.begin() as tx:
                page = reads.posts_page(tx, "ws", filters | {"sort": sort}, place, 100)
            found += [int(post.facts.id.removeprefix("post_")) for post in page.items]
            sizes.append(len(page.items))
            place = page.next_place
        assert found == expected
        assert 5 <= len(sizes) <= 8, "the pages look at posts between the bounds alone"


def test_a_list_of_edits_since_a_time_ends_there_and_does_not_look_through_all_that_is_older(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "LOOKED_AT", 1_000)
    with engine.begin() as tx:
        page = reads.edits_page(tx, "ws", {"created_from": NOW - timedelta(seconds=49)}, None, 100)
        assert ([edit.id for edit in page.items], page.next_place) == ([f"edit_{40000 - n}" for n in range(50)], None)
        rare = reads.edits_page(tx, "ws", {"status": "rejected"}, None, 100)
        assert ([edit.id for edit in rare.items], rare.next_place) == (["edit_40000"], (39_001,))


def test_a_list_of_edits_since_a_time_does_not_end_at_one_that_was_requeued(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands among newer ones, with the time at which it was accepted first."""
    monkeypatch.setattr(reads, "LOOKED_AT", 1_000)
    with engine.connect() as tx:
        tx.execute(
            text("""UPDATE edits SET seq = DEFAULT WHERE id = ANY(ARRAY(
                        SELECT id FROM edits WHERE created_at < :now - interval '9 hours' ORDER BY id LIMIT 2))"""),
            {"now": NOW},
        )
        tx.execute(
            text("""
            INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, created_at)
            SELECT 'edit_late_' || g, 'post_1', 'ws', '{}', 'tests', now() FROM generate_series(1, 999) g""")
        )
        # The place at which the first page's look ends is the second of the two that were requeued.
        filters = {"created_from": NOW - timedelta(seconds=49), "status": "rejected"}
        seen, place = [], None
        while True:
            page = reads.edits_page(tx, "ws", filters, place, 100)
            seen += [edit.id for edit in page.items]
            place = page.next_place
            if place is None:
                break
    assert seen == ["edit_40000"]


def test_the_look_for_a_lists_end_comes_from_an_index_in_order(engine: Engine) -> None:
    with engine.connect() as tx:
        for wanted, index, given in (
            (reads._EDITS, "ix_edits_workspace", {}),
            (reads._EDITS, "ix_edits_post", {"post": "post_7"}),
            (reads._POSTS, "ix_posts_listing", {}),
            (reads._POSTS_IN["scheduledTime"], "ix_posts_schedule", {"scheduled_from": NOW}),
            (reads._POSTS_IN["-scheduledTime"], "ix_posts_schedule", {}),
        ):
            bound = {"workspace": "ws", "looked_at": reads.LOOKED_AT} | given
            statement = reads._end_of(wanted, frozenset(given | {"workspace": "ws"}), after=False)
            in_order_from(index, explained(tx, statement, bound, generic=False))
