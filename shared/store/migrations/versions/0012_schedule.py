"""Posts by the time at which they go out, in an index that is built while others work."""

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# A build that was interrupted leaves an index that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_posts_schedule')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if not op.get_bind().execute(USABLE).scalar():
            # It waits for the ends of transactions. Others read and write meanwhile.
            op.execute("SET lock_timeout = '60s'")
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_posts_schedule")
            op.execute(
                "CREATE INDEX CONCURRENTLY ix_posts_schedule ON posts (workspace_id, scheduled_time, id, account_id)"
            )
