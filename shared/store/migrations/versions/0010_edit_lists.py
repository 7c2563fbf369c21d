"""Indexes for operators' lists: rejected edits, and requests. They are built while others write."""

from alembic import op
from sqlalchemy import text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_edits_rejected": "CREATE INDEX CONCURRENTLY ix_edits_rejected ON edits (id) WHERE status = 'rejected'",
    "ix_edits_request": """
        CREATE INDEX CONCURRENTLY ix_edits_request ON edits (request_id, id) WHERE reschedule_id IS NULL""",
    "ix_reschedules_request": "CREATE INDEX CONCURRENTLY ix_reschedules_request ON reschedules (request_id)",
}
# A build that was interrupted leaves an index that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, statement in INDEXES.items():
            if op.get_bind().execute(USABLE, {"name": name}).scalar():
                continue
            # It waits for the ends of transactions. Others read and write meanwhile.
            op.execute("SET lock_timeout = '60s'")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(statement)
