"""What operators and clients do after an end, with what stood there before; tries that an operator says had no effect;
since when a renderer makes us wait."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    ALTER TABLE posts ADD COLUMN render_waits_since TIMESTAMP WITH TIME ZONE
    """,
    """
    COMMENT ON COLUMN posts.render_waits_since IS $$when the renderer first said "still at work" or "not now" of this content$$
    """,
    """
    CREATE TABLE acts (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        actor TEXT NOT NULL,
        api_key_id TEXT,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        subject_id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        from_state TEXT NOT NULL,
        before JSONB NOT NULL,
        request_id TEXT,
        CONSTRAINT pk_acts PRIMARY KEY (id)
    )
    """,
    """
    CREATE INDEX ix_acts_subject ON acts (subject_id, id DESC)
    """,
    """
    COMMENT ON COLUMN acts.actor IS $$an operator's name, or the name of an API key$$
    """,
    """
    COMMENT ON COLUMN acts.api_key_id IS $$the key, where an API client did it; null: an operator$$
    """,
    """
    COMMENT ON COLUMN acts.subject IS $$what kind of thing subject_id names: post, edit, job, webhook …$$
    """,
    """
    COMMENT ON COLUMN acts.before IS $$what stood there before and was overwritten$$
    """,
    """
    ALTER TABLE publish_attempts ADD COLUMN not_sent BOOLEAN DEFAULT false NOT NULL
    """,
    """
    COMMENT ON COLUMN publish_attempts.not_sent IS $$an operator said that it had no effect; `acts` says who$$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
