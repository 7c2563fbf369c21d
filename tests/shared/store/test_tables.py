"""The tables as the migrations make them are the tables as tables.py says, and refuse what must not be."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Engine, create_engine, inspect, pool, text
from sqlalchemy.exc import IntegrityError

from shared.store import migrating
from shared.store.tables import metadata
from tests import factories


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.begin() as tx:
        factories.workspace(tx)
    return engine


def test_the_migrations_make_exactly_the_tables_of_models(engine: Engine) -> None:
    with engine.connect() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []
        checks = {
            (table.name, constraint.name)
            for table in metadata.tables.values()
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint)
        }
        found = tx.execute(
            text("SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0")
        )
        assert {(table, name) for table, name in found} == checks


def test_migrating_again_changes_nothing(database_url: str, engine: Engine) -> None:
    before = inspect(engine).get_table_names()
    migrating.migrate(database_url)
    assert inspect(engine).get_table_names() == before


def test_no_table_that_names_a_post_has_a_foreign_key_to_it() -> None:
    targets = {key.target_fullname for table in metadata.tables.values() for key in table.foreign_keys}
    assert not any(target.startswith("posts.") for target in targets)


def test_the_order_column_is_an_identity_without_a_cache(engine: Engine) -> None:
    with engine.connect() as tx:
        cache = tx.execute(text("SELECT seqcache FROM pg_sequence WHERE seqrelid = 'edits_seq_seq'::regclass")).scalar()
    assert cache == 1


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"status": "being_published"}, "ck_posts_status"),
        ({"status": "posted"}, "posted_has_its_time"),
        ({"status": "generated", "posted_at": factories.soon()}, "posted_has_its_time"),
        ({"status": "failed"}, "failed_has_its_reason"),
        (
            {"status": "failed", "failure_reason": "x", "claim_kind": "publish", "claim_token": "t",
             "claim_expires_at": factories.soon()},
            "publish_claim_only_in_generated",
        ),
        (
            {"claim_kind": "render", "claim_token": "t", "claim_expires_at": factories.soon()},
            "render_claim_only_in_pending_render",
        ),
        ({"claim_kind": "publish"}, "claim_all_or_none"),
        ({"claim_token": "t"}, "claim_all_or_none"),
        ({"content_type": "slides"}, "ck_posts_content_url"),
    ],
)  # fmt: skip
def test_the_database_refuses_posts_that_cannot_be(engine: Engine, columns: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint), engine.begin() as tx:
        factories.post(tx, **columns)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'applied', revision = 1", "final_has_its_time"),
        ("finalized_at = now()", "final_has_its_time"),
        ("status = 'applied', finalized_at = now()", "applied_has_a_revision"),
        ("status = 'rejected', finalized_at = now()", "rejected_has_a_code"),
        ("status = 'lost', finalized_at = now()", "ck_edits_status"),
    ],
)
def test_the_database_refuses_edits_that_cannot_be(engine: Engine, change: str, constraint: str) -> None:
    with engine.begin() as tx:
        edit = factories.edit(tx, factories.post(tx), {"caption": "x"})
    with pytest.raises(IntegrityError, match=constraint), engine.begin() as tx:
        tx.execute(text(f"UPDATE edits SET {change} WHERE id = :id"), {"id": edit})
