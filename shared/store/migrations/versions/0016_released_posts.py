"""When a resume let a post go whose time had gone by: its lateness counts from then. Older code counts from its time."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("posts", sa.Column("released_at", sa.DateTime(timezone=True)))
