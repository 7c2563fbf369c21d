"""Bulk jobs: reschedules, and the chunks into which each freezes its posts."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE reschedules (
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        api_key_id TEXT NOT NULL,
        requested_by TEXT NOT NULL,
        request_id TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        dry_run BOOLEAN DEFAULT false NOT NULL,
        plan JSONB NOT NULL,
        filter JSONB,
        items JSONB,
        reverts TEXT,
        status TEXT DEFAULT 'queued' NOT NULL,
        total INTEGER,
        chunks INTEGER,
        chunks_done INTEGER DEFAULT 0 NOT NULL,
        held INTEGER DEFAULT 0 NOT NULL,
        applied INTEGER DEFAULT 0 NOT NULL,
        skipped INTEGER DEFAULT 0 NOT NULL,
        failed INTEGER DEFAULT 0 NOT NULL,
        attempts SMALLINT DEFAULT 0 NOT NULL,
        touched_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        error TEXT,
        CONSTRAINT pk_reschedules PRIMARY KEY (id),
        CONSTRAINT ck_reschedules_status CHECK (status IN ('queued', 'running', 'done', 'canceled', 'failed')),
        CONSTRAINT ck_reschedules_ended_has_its_time CHECK ((status IN ('done', 'canceled', 'failed')) = (finished_at IS NOT NULL)),
        CONSTRAINT ck_reschedules_failed_has_its_error CHECK ((status = 'failed') = (error IS NOT NULL)),
        CONSTRAINT ck_reschedules_frozen_all_or_none CHECK (num_nulls(total, chunks) IN (0, 2)),
        CONSTRAINT ck_reschedules_counts_stay_within_the_total CHECK (applied + skipped + failed + held <= coalesce(total, 0)),
        CONSTRAINT ck_reschedules_done_has_counted_all CHECK (status <> 'done' OR applied + skipped + failed = total),
        CONSTRAINT uq_reschedules_reverts UNIQUE (reverts)
    )
     WITH (fillfactor = 50)
    """,
    """
    CREATE INDEX ix_reschedules_listing ON reschedules (workspace_id, created_at DESC, id DESC)
    """,
    """
    CREATE INDEX ix_reschedules_live ON reschedules (id) WHERE status IN ('queued', 'running')
    """,
    """
    COMMENT ON COLUMN reschedules.plan IS $$shift, spread, items or revert: what each post's move is made of$$
    """,
    """
    COMMENT ON COLUMN reschedules.filter IS $$which posts, as the client sent it; null where items or another job name them$$
    """,
    """
    COMMENT ON COLUMN reschedules.items IS $$the request's items; empty again once its posts are frozen into chunks$$
    """,
    """
    COMMENT ON COLUMN reschedules.held IS $$posts passed by, since others held them$$
    """,
    """
    COMMENT ON COLUMN reschedules.attempts IS $$at freezing its posts$$
    """,
    """
    CREATE TABLE reschedule_chunks (
        reschedule_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        first INTEGER NOT NULL,
        post_ids TEXT[] NOT NULL,
        done BOOLEAN DEFAULT false NOT NULL,
        attempts SMALLINT DEFAULT 0 NOT NULL,
        aims JSONB,
        outcomes JSONB DEFAULT '[]' NOT NULL,
        held INTEGER[] DEFAULT '{}' NOT NULL,
        CONSTRAINT pk_reschedule_chunks PRIMARY KEY (reschedule_id, number)
    )
    """,
    """
    CREATE INDEX ix_reschedule_chunks_open ON reschedule_chunks (reschedule_id, number) WHERE NOT done
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.first IS $$the ordinal of its first post in the job$$
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.post_ids IS $$in id order, which is the order of the locks$$
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.done IS $$all but the held ones are decided$$
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.aims IS $$what the plan says of each post, where it says something of its own for each$$
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.outcomes IS $$[index, outcome, before, after, reason] of posts that have no audit row to say it$$
    """,
    """
    COMMENT ON COLUMN reschedule_chunks.held IS $$indexes still to be decided$$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
