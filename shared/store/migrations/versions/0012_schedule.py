"""Posts by the time at which they go out, in an index that is built while others work; warnings of bulk jobs."""

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    ALTER TABLE reschedule_chunks ADD COLUMN warned INTEGER[] DEFAULT '{}' NOT NULL
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.warned IS
        $$indexes of moved posts that share their minute with another post of their account$$
    """,
)

# A build that was interrupted leaves an index that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_posts_schedule')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A migration that met a lock further down begins anew, and must not build the index again.
        if not op.get_bind().execute(USABLE).scalar():
            # It waits for the ends of transactions. Others read and write meanwhile.
            op.execute("SET lock_timeout = '60s'")
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_posts_schedule")
            op.execute(
                "CREATE INDEX CONCURRENTLY ix_posts_schedule ON posts (workspace_id, scheduled_time, id, account_id)"
            )
            op.execute("SET lock_timeout = '250ms'")  # as env.py sets it
    for statement in STATEMENTS:
        op.execute(statement)
