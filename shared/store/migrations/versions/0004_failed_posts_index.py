"""Failed posts by when they failed, in an index that is built while others write."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Earlier forms of 0002 made it; a build that was interrupted leaves one that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_posts_failed')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if op.get_bind().execute(USABLE).scalar():
            return
        # It waits for the ends of transactions, and holds up nobody meanwhile.
        op.execute("SET lock_timeout = '60s'")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_posts_failed")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_posts_failed ON posts (failed_at DESC)"
            " WHERE status = 'failed' AND deleted_at IS NULL"
        )
