"""The table of held accounts and workspaces, and what a post's row says of its own hold (docs/lifecycle.md)."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Table, Text, UniqueConstraint, text

from shared.store.columns import instant, metadata

holds = Table(
    "holds",
    metadata,
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), comment="null: the whole workspace is held"),
    instant("held_at", required=True),
    Column("held_by", Text, nullable=False),
    Column("reason", Text),
    UniqueConstraint("workspace_id", "account_id", name="uq_holds_of", postgresql_nulls_not_distinct=True),
)

NOT_HELD_BY_ITSELF = "held_at IS NULL AND missed_revision IS DISTINCT FROM schedule_revision"
"""Of a post: neither its own hold nor a missed time keeps it. Indexes have these words, so statements use them too."""

HELD_BY_SCOPE = """EXISTS (SELECT FROM holds h WHERE h.workspace_id = posts.workspace_id
    AND (h.account_id IS NULL OR h.account_id = posts.account_id))"""
"""Of a row of `posts`: its account or its workspace is held."""
HELD_BY_ITSELF = "(held_at IS NOT NULL OR missed_revision = schedule_revision) AND deleted_at IS NULL"
"""Of a post: its own hold or a missed time keeps it (ix_posts_held)."""
DUE_AT = "greatest(scheduled_time, released_at)"
"""Of a post: since when it should go out: its time, or the release from a hold that came after its time."""
FREE = f"{NOT_HELD_BY_ITSELF} AND NOT {HELD_BY_SCOPE}"
"""Of a row of `posts`: nothing holds it."""


def hold_columns() -> tuple[Column[object] | CheckConstraint | Index, ...]:
    """The columns of a post's own hold, their checks and indexes."""
    return (
        instant("held_at"),
        Column("held_by", Text),
        Column("held_reason", Text),
        instant("missed_at"),
        Column("missed_revision", BigInteger, comment="the schedule revision of the time that went by while held"),
        instant("released_at"),
        CheckConstraint("num_nulls(held_at, held_by) IN (0, 2)", name="held_all_or_none"),
        CheckConstraint("held_reason IS NULL OR held_at IS NOT NULL", name="held_reason_of_a_hold"),
        CheckConstraint("num_nulls(missed_at, missed_revision) IN (0, 2)", name="missed_all_or_none"),
        # ix_posts_due is its like for the code of before. A later version may drop that one.
        Index(
            "ix_posts_free",
            "scheduled_time",
            postgresql_where=text(
                f"status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL AND {NOT_HELD_BY_ITSELF}"
            ),
        ),
        Index(
            "ix_posts_held",
            "workspace_id",
            "account_id",
            postgresql_where=text(HELD_BY_ITSELF),
        ),
    )
