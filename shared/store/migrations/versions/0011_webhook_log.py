"""Each try of a webhook event with its answer; when an operator queued an event again; and an index by which each
workspace's backlog and dead events are counted.
"""

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The key lets a try go with its event, whichever version deletes that.
    """
    CREATE TABLE webhook_tries (
        event_seq BIGINT NOT NULL,
        number INTEGER NOT NULL,
        workspace_id TEXT NOT NULL,
        at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        outcome TEXT NOT NULL,
        status SMALLINT,
        message TEXT,
        CONSTRAINT pk_webhook_tries PRIMARY KEY (event_seq, number),
        CONSTRAINT fk_webhook_tries_event_seq FOREIGN KEY (event_seq) REFERENCES webhook_events (seq) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX ix_webhook_tries_latest ON webhook_tries (workspace_id, at DESC)
    """,
    """
    COMMENT ON COLUMN webhook_tries.status IS $$the HTTP status; null: there was no answer$$
    """,
    """
    COMMENT ON COLUMN webhook_events.resent_at IS $$when an operator queued it again; its day begins there$$
    """,
)


# A build that was interrupted leaves one that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_webhook_events_open')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE webhook_events ADD COLUMN IF NOT EXISTS resent_at TIMESTAMP WITH TIME ZONE")
        # A migration that met a lock further down begins anew, and must not build the index again.
        if not op.get_bind().execute(USABLE).scalar():
            # It waits for the ends of transactions, and holds up no other statement meanwhile.
            op.execute("SET lock_timeout = '60s'")
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_webhook_events_open")
            op.execute(
                "CREATE INDEX CONCURRENTLY ix_webhook_events_open ON webhook_events"
                " (workspace_id, status, coalesce(resent_at, created_at), seq) WHERE status <> 'delivered'"
            )
            op.execute("SET lock_timeout = '250ms'")  # as env.py sets it
    for statement in STATEMENTS:
        op.execute(statement)
