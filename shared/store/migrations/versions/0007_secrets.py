"""What all API processes know and no client does: the key that seals the cursors of lists."""

from secrets import token_bytes

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE secrets (
            name TEXT NOT NULL,
            value BYTEA NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
            CONSTRAINT pk_secrets PRIMARY KEY (name)
        )
    """)
    op.execute("COMMENT ON COLUMN secrets.value IS 'random, made by a migration; shown to nobody'")
    # Made here and not by the first process that asks: two that ask at once must not make two.
    made = text("INSERT INTO secrets (name, value) VALUES ('cursors', :value)").bindparams(value=token_bytes(32))
    op.get_bind().execute(made)
