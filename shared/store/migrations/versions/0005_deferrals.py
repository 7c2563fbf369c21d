"""How often a batch with this edit in it failed at PostgreSQL for its own sake: too long, too large."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("edits", sa.Column("deferrals", sa.SmallInteger, nullable=False, server_default=sa.text("0")))
