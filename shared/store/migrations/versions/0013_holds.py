"""Holds of posts, accounts and workspaces, and a trigger by which the database refuses a publish claim of a held post,
also one of older code.
"""

from alembic import op
from sqlalchemy import text

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NOT_HELD_BY_ITSELF = "held_at IS NULL AND missed_revision IS DISTINCT FROM schedule_revision"
CHECKS = {
    "held_all_or_none": "num_nulls(held_at, held_by) IN (0, 2)",
    "held_reason_of_a_hold": "held_reason IS NULL OR held_at IS NOT NULL",
    "missed_all_or_none": "num_nulls(missed_at, missed_revision) IN (0, 2)",
}
INDEXES = {
    "ix_posts_free": "posts (scheduled_time) WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL"
    f" AND {NOT_HELD_BY_ITSELF}",
    "ix_posts_held": "posts (workspace_id, account_id)"
    " WHERE (held_at IS NOT NULL OR missed_revision = schedule_revision) AND deleted_at IS NULL",
}
# A build that was interrupted leaves one that is of no use.
USABLE = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
CHECKED = text("SELECT convalidated FROM pg_constraint WHERE conrelid = 'posts'::regclass AND conname = :name")

STATEMENTS = (
    """
    CREATE TABLE holds (
        workspace_id TEXT NOT NULL,
        account_id TEXT,
        held_at TIMESTAMP WITH TIME ZONE NOT NULL,
        held_by TEXT NOT NULL,
        reason TEXT,
        CONSTRAINT uq_holds_of UNIQUE NULLS NOT DISTINCT (workspace_id, account_id),
        CONSTRAINT fk_holds_workspace_id FOREIGN KEY (workspace_id) REFERENCES workspaces (id),
        CONSTRAINT fk_holds_account_id FOREIGN KEY (account_id) REFERENCES accounts (id)
    )
    """,
    """
    COMMENT ON COLUMN holds.account_id IS $$null: the whole workspace is held$$
    """,
    # The claims of this version look before they claim, under the same lock. Older code meets the error instead. To
    # it this is a row that another session has locked, for which it comes back later.
    """
    CREATE FUNCTION redraft_refuse_claim_of_held() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(7343, hashtext(NEW.workspace_id));
        IF NEW.held_at IS NOT NULL OR NEW.missed_revision = NEW.schedule_revision OR EXISTS (
            SELECT FROM holds h WHERE h.workspace_id = NEW.workspace_id
                AND (h.account_id IS NULL OR h.account_id = NEW.account_id))
        THEN
            RAISE EXCEPTION 'post % is held: no publish claims it', NEW.id USING ERRCODE = 'lock_not_available';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER refuse_claim_of_held BEFORE UPDATE OF claim_kind ON posts FOR EACH ROW
    WHEN (NEW.claim_kind = 'publish' AND OLD.claim_kind IS DISTINCT FROM 'publish')
    EXECUTE FUNCTION redraft_refuse_claim_of_held()
    """,
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Each step is done once, for a migration that met a lock further down begins anew.
        op.execute("""
            ALTER TABLE posts ADD COLUMN IF NOT EXISTS held_at TIMESTAMP WITH TIME ZONE,
                ADD COLUMN IF NOT EXISTS held_by TEXT, ADD COLUMN IF NOT EXISTS held_reason TEXT,
                ADD COLUMN IF NOT EXISTS missed_at TIMESTAMP WITH TIME ZONE,
                ADD COLUMN IF NOT EXISTS missed_revision BIGINT
        """)
        for name, rule in CHECKS.items():
            whole = f"ck_posts_{name}"
            checked = op.get_bind().execute(CHECKED, {"name": whole}).scalar()
            if checked is None:
                op.execute(f"ALTER TABLE posts ADD CONSTRAINT {whole} CHECK ({rule}) NOT VALID")
            if not checked:
                # It reads all rows, and holds up no write meanwhile.
                op.execute(f"ALTER TABLE posts VALIDATE CONSTRAINT {whole}")
        for name, index in INDEXES.items():
            if not op.get_bind().execute(USABLE, {"name": name}).scalar():
                # It waits for the ends of transactions, and holds up no other statement meanwhile.
                op.execute("SET lock_timeout = '60s'")
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {index}")
                op.execute("SET lock_timeout = '250ms'")  # as env.py sets it
        op.execute(
            "COMMENT ON COLUMN posts.missed_revision IS $$the schedule revision of the time that went by while held$$"
        )
    for statement in STATEMENTS:
        op.execute(statement)
