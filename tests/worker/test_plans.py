"""Plans are cached when tables are young, and must be as good when these have grown."""

import pytest
from sqlalchemy import Engine, text

from shared.store import db
from tests import factories, jobs
from worker.apply import apply_edits

# PostgreSQL plans a statement for good after five runs, and the driver prepares it after five.
SETTLED = 15
GROWN = 20_000
_GROW = """
    INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, revision, finalized_at)
    SELECT 'edit_old_' || n, 'post_old_' || n, :workspace, '{}', 'tests', 'applied', 2, now()
    FROM generate_series(1, :count) n"""
_GROW_POSTS = """
    INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, scheduled_time,
        status)
    SELECT 'post_old_' || n, :workspace, :account, 'tiktok', 'video', '"https://cdn.example.com/a.mp4"', 'old',
        now() + interval '1 day', 'generated'
    FROM generate_series(1, :count) n"""


def index_entries_read(engine: Engine) -> int:
    """How many entries of the primary keys of edits and posts have been read so far."""
    for ours in (db.engine(), db._autocommit_relaxed()):
        with ours.connect() as tx:
            tx.execute(text("SELECT pg_stat_force_next_flush()"))
    with engine.connect() as tx:
        read = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE indexrelname IN ('pk_edits', 'pk_posts')"
        return int(tx.execute(text(read)).scalar_one())


def young(engine: Engine) -> None:
    """PostgreSQL has looked at the tables while there was next to nothing in them, as it does by itself."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) posts, edits"))


def edited(engine: Engine, post: str, caption: str) -> None:
    with engine.begin() as tx:
        factories.edit(tx, post, {"caption": caption})
    assert len(apply_edits([post]).results) == 1


@pytest.mark.parametrize("growth", [_GROW, _GROW_POSTS])
def test_an_edit_reads_a_handful_of_rows_however_much_the_tables_grew_since_its_statements_were_planned(
    engine: Engine, growth: str
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    young(engine)
    for number in range(SETTLED):
        edited(engine, post, f"caption {number}")
    with engine.begin() as tx:
        given = {"workspace": factories.WORKSPACE, "account": factories.TIKTOK, "count": GROWN}
        tx.execute(text(growth), {name: value for name, value in given.items() if f":{name}" in growth})
    before = index_entries_read(engine)
    edited(engine, post, "and one more")
    assert index_entries_read(engine) - before < 100


def test_a_chunk_reads_its_own_rows_however_much_the_tables_grew_since_its_statements_were_planned(
    engine: Engine,
) -> None:
    with engine.begin() as tx:
        ids = [factories.post(tx) for _ in range(5)]
    young(engine)
    for _ in range(SETTLED):
        jobs.done({"filter": {"postIds": ids}, "shift": "PT1H"})
    with engine.begin() as tx:
        tx.execute(text(_GROW), {"workspace": factories.WORKSPACE, "count": GROWN})
        given = {"workspace": factories.WORKSPACE, "account": factories.TIKTOK, "count": GROWN}
        tx.execute(text(_GROW_POSTS), given)
    job = jobs.make({"filter": {"postIds": ids}, "shift": "PT1H"})
    before = index_entries_read(engine)
    jobs.run(job)
    assert index_entries_read(engine) - before < 200
