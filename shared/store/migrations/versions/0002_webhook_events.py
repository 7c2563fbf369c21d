"""Events for the receiver of webhooks, written under the lock of the post that they tell of; when a post failed."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE webhook_events (
        seq BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1),
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        post_id TEXT NOT NULL,
        type TEXT NOT NULL,
        data JSONB NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        status TEXT DEFAULT 'queued' NOT NULL,
        tries SMALLINT DEFAULT 0 NOT NULL,
        lease_token TEXT,
        lease_expires_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        message TEXT,
        CONSTRAINT pk_webhook_events PRIMARY KEY (seq),
        CONSTRAINT uq_webhook_events_id UNIQUE (id),
        CONSTRAINT ck_webhook_events_status CHECK (status IN ('queued', 'delivered', 'dead')),
        CONSTRAINT ck_webhook_events_finished_has_its_time CHECK ((status = 'queued') = (finished_at IS NULL)),
        CONSTRAINT ck_webhook_events_lease_all_or_none CHECK (num_nulls(lease_token, lease_expires_at) IN (0, 2)),
        CONSTRAINT ck_webhook_events_only_queued_is_leased CHECK (status = 'queued' OR lease_token IS NULL)
    )
     WITH (fillfactor = 85)
    """,
    """
    CREATE INDEX ix_webhook_events_queue ON webhook_events (post_id, seq) WHERE status = 'queued'
    """,
    """
    CREATE INDEX ix_webhook_events_dead ON webhook_events (seq DESC) WHERE status = 'dead'
    """,
    """
    CREATE INDEX ix_webhook_events_delivered ON webhook_events (finished_at) WHERE status = 'delivered'
    """,
    """
    COMMENT ON COLUMN webhook_events.message IS $$how the latest try failed$$
    """,
    """
    ALTER TABLE posts ADD COLUMN failed_at TIMESTAMP WITH TIME ZONE
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
