"""Which posts go out next, and which are held, for `redraft posts list --due` and `--held` (docs/operations.md)."""

from datetime import timedelta

from sqlalchemy import Connection, TextClause, text

from shared.store.hold_tables import HELD_BY_ITSELF, HELD_BY_SCOPE
from shared.store.operator_actions import ListedPost

_COLUMNS = "SELECT id, workspace_id, account_id, status, scheduled_time, clock_timestamp() AS now FROM posts"
_MINE = """((CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
                AND (CAST(:account AS text) IS NULL OR account_id = :account)) IS TRUE"""


def _waiting(condition: str) -> TextClause:
    """Posts that wait and for which that holds, the next one first."""
    those = f"deleted_at IS NULL AND {condition} AND {_MINE} ORDER BY scheduled_time LIMIT :limit"
    return text(f"""
    SELECT * FROM (
        ({_COLUMNS} WHERE status = 'generated' AND claim_kind IS NULL AND {those})
        UNION ALL ({_COLUMNS} WHERE status = 'pending_render' AND claim_kind IS NULL AND {those})
        UNION ALL ({_COLUMNS} WHERE claim_kind IS NOT NULL AND {those})
    ) waiting ORDER BY scheduled_time, id LIMIT :limit""")


_DUE = _waiting("scheduled_time <= statement_timestamp() + :within")
_HELD = _waiting(f"({HELD_BY_ITSELF} OR {HELD_BY_SCOPE})")


def listed(
    tx: Connection, within: timedelta | None, *, workspace_id: str | None, account_id: str | None, limit: int
) -> list[ListedPost]:
    """Posts that wait, the next one first, late ones before all: those that go out within that time; without a time
    those that are held, by themselves or of their account or workspace (ix_posts_due, ix_posts_unrendered,
    ix_posts_claims). For held ones all posts that wait are looked at.
    """
    given = {"within": within, "workspace": workspace_id, "account": account_id, "limit": limit}
    return [ListedPost(*row) for row in tx.execute(_HELD if within is None else _DUE, given)]
