"""A failed post says which kind of failure it was and what was answered last; a render's latest answer stands in its
post; a publisher's id stands beside the try that got it.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE posts
            ADD COLUMN failure_class TEXT,
            ADD COLUMN failure_message TEXT,
            ADD COLUMN render_outcome TEXT,
            ADD COLUMN render_message TEXT,
            ADD COLUMN render_answered_at TIMESTAMP WITH TIME ZONE
    """)
    op.execute("COMMENT ON COLUMN posts.failure_class IS 'the kind of failure; null: failed before it was recorded'")
    op.execute("COMMENT ON COLUMN posts.failure_message IS 'the last answer, in words'")
    op.execute("COMMENT ON COLUMN posts.render_outcome IS 'how the latest try at a render ended'")
    op.execute("ALTER TABLE publish_attempts ADD COLUMN platform_post_id TEXT")
