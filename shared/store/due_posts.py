"""Which posts go out next, for `redraft posts list --due` (docs/operations.md)."""

from datetime import timedelta

from sqlalchemy import Connection, text

from shared.store.operator_actions import ListedPost

_COLUMNS = "SELECT id, workspace_id, account_id, status, scheduled_time, clock_timestamp() AS now FROM posts"
_MINE = """deleted_at IS NULL AND scheduled_time <= statement_timestamp() + :within
            AND ((CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
                AND (CAST(:account AS text) IS NULL OR account_id = :account)) IS TRUE"""
_DUE = text(f"""
    SELECT * FROM (
        ({_COLUMNS} WHERE status = 'generated' AND claim_kind IS NULL AND {_MINE} ORDER BY scheduled_time LIMIT :limit)
        UNION ALL ({_COLUMNS} WHERE status = 'pending_render' AND claim_kind IS NULL AND {_MINE}
            ORDER BY scheduled_time LIMIT :limit)
        UNION ALL ({_COLUMNS} WHERE claim_kind IS NOT NULL AND {_MINE} ORDER BY scheduled_time LIMIT :limit)
    ) due ORDER BY scheduled_time, id LIMIT :limit""")


def due_posts(
    tx: Connection, within: timedelta, *, workspace_id: str | None, account_id: str | None, limit: int
) -> list[ListedPost]:
    """Posts that wait and go out within that time, the next one first, late ones before all (ix_posts_due,
    ix_posts_unrendered, ix_posts_claims).
    """
    given = {"within": within, "workspace": workspace_id, "account": account_id, "limit": limit}
    return [ListedPost(*row) for row in tx.execute(_DUE, given)]
