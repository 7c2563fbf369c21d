"""How long each try of a webhook event took, so that a slow receiver is named; and an index by which the delivered
events of one workspace are listed.
"""

from alembic import op
from sqlalchemy import text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A build that was interrupted leaves one that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_webhook_events_taken')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A migration that met a lock further down begins anew, and must not build the index again.
        if not op.get_bind().execute(USABLE).scalar():
            # It waits for the ends of transactions, and holds up no other statement meanwhile.
            op.execute("SET lock_timeout = '60s'")
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_webhook_events_taken")
            op.execute(
                "CREATE INDEX CONCURRENTLY ix_webhook_events_taken ON webhook_events"
                " (workspace_id, finished_at, seq) WHERE status = 'delivered'"
            )
            op.execute("SET lock_timeout = '250ms'")  # as env.py sets it
    op.execute("ALTER TABLE webhook_tries ADD COLUMN IF NOT EXISTS took_ms INTEGER")
    op.execute("COMMENT ON COLUMN webhook_tries.took_ms IS $$how long the call lasted; null: not known$$")
