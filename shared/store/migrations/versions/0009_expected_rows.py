"""A function that ends a statement which wrote another number of rows than expected. So the count is checked within the
trip that commits.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION redraft_expect(written bigint, expected bigint, what text) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            IF written <> expected THEN
                RAISE EXCEPTION '%: % rows instead of %', what, written, expected USING ERRCODE = 'RD001';
            END IF;
        END $$
    """)
