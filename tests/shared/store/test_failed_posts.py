"""Failed posts and the answers of services are found by their indexes, however many posts there are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, create_engine, pool, text

from shared.domain.failure_classes import BY_REASON, FailureClass, of_row
from shared.local.postgres import PostgreSQL
from shared.store import failed_posts, gauges, health
from tests.conftest import TEMPLATE

FAILED, OTHERS = 20_000, 10_000


@pytest.fixture(scope="module")
def engine(postgres: PostgreSQL) -> Iterator[Engine]:
    """20,000 failed posts of three classes, every hundredth without a time; 10,000 others, half of them unrendered."""
    engine = create_engine(postgres.create_database("failure_plans", template=TEMPLATE), poolclass=pool.NullPool)
    with engine.begin() as tx:
        tx.execute(
            text("""
                INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                    scheduled_time, status, failure_reason, failure_class, failure_message, failed_at)
                SELECT 'post_' || g, 'ws_' || g % 3, 'acc', 'tiktok', 'video', '"https://cdn.example.com/a.mp4"',
                    repeat('x', 80), now() - g * interval '1 minute', 'failed', 'publisher_unavailable',
                    (ARRAY['misconfigured', 'unavailable', NULL])[1 + g % 3], 'answer ' || g % 5,
                    CASE WHEN g % 100 <> 0 THEN now() - g * interval '1 second' END
                FROM generate_series(1, :failed) g"""),
            {"failed": FAILED},
        )
        tx.execute(
            text("""
                INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                    scheduled_time, status, retry_at, render_outcome, claim_kind, claim_token, claim_expires_at)
                SELECT 'other_' || g, 'ws', 'acc', 'tiktok', 'video', '"https://cdn.example.com/a.mp4"',
                    repeat('x', 80), now() + g * interval '1 minute',
                    CASE g % 2 WHEN 0 THEN 'generated' ELSE 'pending_render' END, now(),
                    CASE g % 2 WHEN 1 THEN 'server_error' END, CASE WHEN g % 50 = 0 THEN 'publish' END,
                    CASE WHEN g % 50 = 0 THEN 'clm_' || g END, CASE WHEN g % 50 = 0 THEN now() END
                FROM generate_series(1, :others) g"""),
            {"others": OTHERS},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        tx.execute(text("VACUUM ANALYZE posts"))
    yield engine
    engine.dispose()
    postgres.drop_database("failure_plans")


ASKED = {
    "ids": None,
    "reason": None,
    "since": None,
    "workspace": None,
    "account": None,
    "limit": 51,
    "harmless": ["done"],
}
LOOKED_AT = failed_posts._ALL | {"looked_at": 500}


def plan(engine: Engine, statement: TextClause, given: dict[str, Any]) -> str:
    with engine.connect() as tx:
        return "\n".join(tx.execute(text(f"EXPLAIN (ANALYZE, TIMING OFF) {statement.text}"), given).scalars())


@pytest.mark.parametrize(
    ("statement", "given", "index"),
    [
        (failed_posts._FAILED, ASKED, "ix_posts_failed"),
        (failed_posts._FAILED, ASKED | {"reason": "misconfigured"}, "ix_posts_failed"),
        (failed_posts._FAILED, ASKED | {"ids": ["post_7"], "limit": 1}, "pk_posts"),
        (failed_posts._GROUPS, LOOKED_AT | {"limit": 100}, "ix_posts_failed"),
        (failed_posts._CLASSES, LOOKED_AT, "ix_posts_failed"),
        (
            failed_posts._GROUP,
            LOOKED_AT | {"group": "misconfigured", "limit": 100, "harmless": ["done"]},
            "ix_posts_failed",
        ),
        (gauges.STATEMENTS["failed"], {}, "ix_posts_failed"),
        (gauges.STATEMENTS["render_answers"], {}, "ix_posts_unrendered"),
        (health._PUBLISHER, {"many": 500}, "ix_posts_claims"),
        (health._RENDERER, {"many": 500}, "ix_posts_unrendered"),
        (health._RENDERER, {"many": 500}, "ix_posts_claims"),
        (health._RENDERER_WAITS, {"many": 500}, "ix_posts_unrendered"),
    ],
)
def test_it_reads_an_index_and_never_all_posts(
    engine: Engine, statement: TextClause, given: dict[str, Any], index: str
) -> None:
    found = plan(engine, statement, given)
    assert index in found, found
    assert "Seq Scan on posts" not in found, found
    # Nor one after the other by their ids, which costs as much.
    assert index == "pk_posts" or "pk_posts" not in found, found
    removed = [int(line.split(":")[1]) for line in found.splitlines() if "Rows Removed by Filter" in line]
    assert given.get("reason") or max(removed, default=0) <= OTHERS // 50, found


def test_a_list_comes_from_its_index_in_order_and_looks_at_no_more_than_it_shows(engine: Engine) -> None:
    found = plan(engine, failed_posts._FAILED, ASKED)
    [newest] = [line for line in found.splitlines() if "ix_posts_failed" in line and "Index Scan using" in line][:1]
    assert float(newest.partition("(actual rows=")[2].split()[0]) <= 52, found


def test_the_statements_tell_the_class_that_the_pure_rule_tells(engine: Engine) -> None:
    """Every class with every reason that could stand beside it, and without one."""
    with engine.begin() as tx:
        given = "SELECT CAST(:recorded AS text) AS failure_class, CAST(:reason AS text) AS failure_reason"
        asked = text(f"SELECT {failed_posts.CLASS} FROM ({given}) p")
        for recorded in [None, *FailureClass]:
            for reason in [*BY_REASON, "suspended"]:
                told = tx.execute(asked, {"recorded": recorded, "reason": reason}).scalar_one()
                assert told == of_row(recorded, reason)


def test_posts_whose_time_of_failure_is_unknown_come_last_and_none_comes_twice(engine: Engine) -> None:
    with engine.connect() as tx:
        found = failed_posts.find(tx, limit=FAILED + 1)
        newest = failed_posts.groups(tx, limit=3)
    assert len({post.id for post in found}) == FAILED
    times = [post.failed_at for post in found]
    known = [at for at in times if at is not None]
    assert times == [*sorted(known, reverse=True), *[None] * (FAILED // 100)]
    assert (newest.total, newest.truncated, newest.distinct, len(newest.groups)) == (
        failed_posts.LOOKED_AT,
        True,
        10,
        3,
    )
    assert sum(one.count for one in newest.classes) == failed_posts.LOOKED_AT
    assert {one.failure for one in newest.classes} == {FailureClass.MISCONFIGURED, FailureClass.UNAVAILABLE}


def test_a_group_is_put_together_of_what_failed_by_then(engine: Engine) -> None:
    with engine.connect() as tx:
        [first, *_] = failed_posts.groups(tx, limit=1).groups
        posts = failed_posts.of_group(tx, first.id, None, failed_posts.LOOKED_AT)
        none = failed_posts.of_group(tx, first.id, datetime(2020, 1, 1, tzinfo=UTC), failed_posts.LOOKED_AT)
        whole = failed_posts.of_group(tx, first.failure, None, 7)
    assert len(posts) == first.count
    assert {(post.failure, post.reason, post.words) for post in posts} == {(first.failure, first.reason, first.words)}
    assert [post.failed_at for post in none] == [None] * len(none)
    assert [post.failure for post in whole] == [first.failure] * 7
