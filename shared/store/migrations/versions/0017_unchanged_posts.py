"""How many posts of a bulk job were already where the job wants them. Jobs from before this have null: not counted.

Code that does not know the column leaves such posts out of the count.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "of applied: posts that were there already; null for a job of a version that did not count them"
    op.add_column("reschedules", sa.Column("unchanged", sa.Integer, comment=comment))
    # The default is for new rows only.
    op.alter_column("reschedules", "unchanged", server_default=sa.text("0"))
    op.create_check_constraint("unchanged_are_applied", "reschedules", "unchanged BETWEEN 0 AND applied")
