"""Warnings of a bulk job: which posts that it moves share their minute with another post of their account."""

from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from shared.domain.reschedule_jobs import audit_id
from shared.store.db import wait_longer
from shared.store.reschedule_chunks import Work
from shared.store.reschedule_freezes import TAKE_TIME

SMALL: Final = 10_000
"""A job of at most so many posts looks at the posts of its own accounts, and a larger one at the whole workspace."""

_ACCOUNTS = text("""
    SELECT DISTINCT p.account_id FROM reschedule_chunks c CROSS JOIN LATERAL unnest(c.post_ids) AS i(id)
    JOIN posts p ON p.id = i.id WHERE c.reschedule_id = :job""")

# What the job moved was moved into its future. So it shares no minute with a post from before the job.
_WAITING = """
        SELECT p.id, p.account_id, p.scheduled_time AS at FROM posts p
        WHERE p.workspace_id = :workspace AND p.status IN ('pending_render', 'generated') AND p.deleted_at IS NULL
            AND p.scheduled_time >= (SELECT date_trunc('minute', created_at) FROM reschedules WHERE id = :job)"""
_OF_ITS_ACCOUNTS = " AND p.account_id = ANY(CAST(:accounts AS text[]))"
# A dry run moves nothing: its outcomes say where the posts are and would be.
_PLANNED = """
    planned AS MATERIALIZED (
        SELECT c.post_ids[CAST(o.entry ->> 0 AS integer) + 1] AS id, CAST(o.entry ->> 3 AS timestamptz) AS at,
            o.entry -> 2 <> o.entry -> 3 AS moved
        FROM reschedule_chunks c CROSS JOIN LATERAL jsonb_array_elements(c.outcomes) AS o(entry)
        WHERE c.reschedule_id = :job AND o.entry ->> 1 = 'applied'
    ),"""
_AS_PLANNED = """
        SELECT p.id, p.account_id, l.at FROM planned l JOIN posts p ON p.id = l.id
        UNION ALL
        SELECT w.* FROM ({}) w WHERE (w.id IN (SELECT id FROM planned)) IS NOT TRUE"""
# Of a real job the audit row says it, which a skipped post has not.
_MOVES = """
            AND EXISTS (
                SELECT FROM edits e WHERE e.id = :prefix || lpad(CAST(c.first + i.place - 1 AS text), 7, '0')
                    AND e.reschedule_id = :job AND e.before ->> 'scheduledTime' IS NOT NULL
            )"""
_WOULD_MOVE = " AND (i.id IN (SELECT id FROM planned WHERE moved)) IS TRUE"


# MATERIALIZED: PostgreSQL has no statistics of a new job's chunks, and expects one chunk. It would look for the same
# posts anew for each chunk.
def _statement(*, dry_run: bool, all_accounts: bool) -> TextClause:
    waiting = _WAITING if all_accounts else _WAITING + _OF_ITS_ACCOUNTS
    planned, waiting, moves = (_PLANNED, _AS_PLANNED.format(waiting), _WOULD_MOVE) if dry_run else ("", waiting, _MOVES)
    return text(f"""
    WITH {planned} crowded AS MATERIALIZED (
        SELECT unnest(array_agg(w.id)) AS id FROM ({waiting}) w
        GROUP BY w.account_id, date_trunc('minute', w.at) HAVING count(*) > 1
    ), named AS (
        SELECT c.number, CAST(i.place - 1 AS integer) AS index
        FROM reschedule_chunks c CROSS JOIN LATERAL unnest(c.post_ids) WITH ORDINALITY AS i(id, place)
        WHERE c.reschedule_id = :job AND (i.id IN (SELECT id FROM crowded)) IS TRUE{moves}
    ), numbered AS MATERIALIZED (
        SELECT number, array_agg(index ORDER BY index) AS indexes FROM named GROUP BY number ORDER BY number
    )
    UPDATE reschedule_chunks c SET warned = n.indexes FROM numbered n
    WHERE c.reschedule_id = :job AND c.number = n.number""")


_STATEMENTS = {
    (dry_run, everywhere): _statement(dry_run=dry_run, all_accounts=everywhere)
    for dry_run in (False, True)
    for everywhere in (False, True)
}
# `IS TRUE` keeps PostgreSQL from making a join of IN. Our sessions would run that row by row, each of one set with each
# of the other. Instead PostgreSQL makes a hashed subplan, where it expects one to fit into its memory.
_LIMITS = text("SELECT set_config('transaction_timeout', :limit, true), set_config('work_mem', '64MB', true)")


def warn(tx: Connection, job: Work) -> None:
    """Write down which posts a job, all decided, puts into the minute of another waiting post of their account.

    The rule is `reschedule_gaps.sharing_a_minute`. Twice in a row does no harm.
    """
    accounts = None
    if (job.total or 0) <= SMALL:
        accounts = list(tx.execute(_ACCOUNTS, {"job": job.id}).scalars())
    tx.execute(_LIMITS, {"limit": f"{TAKE_TIME}s"})
    wait_longer(tx, TAKE_TIME)
    given: dict[str, Any] = {"job": job.id, "workspace": job.workspace_id}
    given |= ({} if accounts is None else {"accounts": accounts}) | (
        {} if job.dry_run else {"prefix": audit_id(job.id, 0)[:-7]}
    )
    tx.execute(_STATEMENTS[job.dry_run, accounts is None], given)
