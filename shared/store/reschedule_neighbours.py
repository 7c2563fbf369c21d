"""The accounts of a bulk job's posts, and the other posts of these accounts (docs/bulk.md)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from shared.domain.reschedule_gaps import Placed
from shared.store.raw_statements import array

_ACCOUNTS = text("SELECT id, account_id FROM posts WHERE id = ANY(CAST(:ids AS text[]))")


def accounts_of(tx: Connection, post_ids: Sequence[str]) -> dict[str, str]:
    """The account of each post. A post keeps it for good."""
    return {row[0]: row[1] for row in tx.execute(_ACCOUNTS, {"ids": array(post_ids)})}


# The names are sorted first, and locked in that order.
_LINE_UP = text("""
    SELECT pg_advisory_xact_lock(7344, ordered.name) FROM (
        SELECT DISTINCT hashtext(account) AS name FROM unnest(CAST(:accounts AS text[])) AS a(account) ORDER BY name
    ) AS ordered""")


def line_up(tx: Connection, accounts: Iterable[str]) -> None:
    """Wait until no other job with a gap moves posts of these accounts. None begins before this transaction ends.

    Call it before posts are locked, so that no edit waits behind this. Read the accounts' posts in a later statement.
    """
    tx.execute(_LINE_UP, {"accounts": array(sorted(set(accounts)))})


_NEIGHBOURS = text("""
    SELECT p.id, w.account_id, p.scheduled_time
    FROM unnest(CAST(:accounts AS text[]), CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[]))
        AS w(account_id, begins, ends)
    CROSS JOIN LATERAL (
        SELECT id, scheduled_time FROM posts
        WHERE workspace_id = :workspace AND scheduled_time > w.begins AND scheduled_time < w.ends
            AND account_id = w.account_id AND status IN ('pending_render', 'generated') AND deleted_at IS NULL) p""")


def neighbours(
    tx: Connection, workspace_id: str, windows: Mapping[str, Sequence[tuple[datetime, datetime]]]
) -> list[Placed]:
    """The waiting posts of each account within its windows, whose two ends are left out (ix_posts_schedule)."""
    spans = [(account, begin, end) for account, some in windows.items() for begin, end in some]
    given = {
        "workspace": workspace_id,
        "accounts": array([account for account, _, _ in spans]),
        "begins": [begin for _, begin, _ in spans],
        "ends": [end for _, _, end in spans],
    }
    return [Placed(*row) for row in tx.execute(_NEIGHBOURS, given)]
