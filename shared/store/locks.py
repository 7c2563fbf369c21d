"""Which session of PostgreSQL has a post locked, and since when. It takes no lock, and waits for none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from shared.domain.waits import Lock, who
from shared.settings import settings

if TYPE_CHECKING:
    from datetime import timedelta

SHOWN_AFTER = 1.0
"""Seconds that a transaction has lasted. Our own transactions lock posts too, for milliseconds, and for seconds under
load: they are shown only when PostgreSQL should have ended them (REDRAFT_TRANSACTION_TIMEOUT). A person who ends one
ends a worker's work.
"""

# A row's xmax is the transaction that locks or changes it, and each transaction holds a lock on its own number. So the
# holder is known before any session waits for it: workers skip a locked post. Two kinds of locks are not found: those
# that several sessions share, and one from a savepoint that was released. The query is not read: its text may hold
# captions. A plain user sees no times of other users' sessions.
_OF_POSTS = text("""
    SELECT locked.post_id, locked.pid, a.application_name, a.usename, host(a.client_addr),
        coalesce(a.state LIKE 'idle in%', false), clock_timestamp() - a.xact_start
    FROM (
        SELECT p.id AS post_id, l.pid FROM posts p JOIN pg_locks l ON l.transactionid = p.xmax
        WHERE p.id = ANY(:ids) AND l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock'
        UNION ALL
        SELECT i.id, l.pid FROM unnest(CAST(:ids AS text[])) i(id) CROSS JOIN pg_locks l
        WHERE l.relation = 'posts'::regclass AND l.granted AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock',
                'ExclusiveLock', 'AccessExclusiveLock')
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) locked
    JOIN pg_stat_activity a ON a.pid = locked.pid
    WHERE a.pid <> pg_backend_pid()
        AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - make_interval(secs =>
            CASE WHEN a.application_name LIKE 'redraft%' THEN greatest(:age, :ours) ELSE :age END))
    ORDER BY a.xact_start""")


def of_posts(tx: Connection, post_ids: Sequence[str], age: float = SHOWN_AFTER) -> dict[str, Lock]:
    """Post -> the session that has had it, or all posts, locked for `age` seconds and more; the oldest, where there are
    several. Left out: posts that no session has locked, or that a session of Redraft works on.
    """
    found: dict[str, Lock] = {}
    if not post_ids:
        return found
    rows = tx.execute(_OF_POSTS, {"ids": list(post_ids), "age": age, "ours": settings().transaction_timeout})
    for post_id, pid, *named, idle, since in rows:
        lasted: timedelta | None = since
        found.setdefault(post_id, Lock(pid, who(*named), idle, lasted))
    return found
