"""What the database says of a run, against what the clients were told."""

import psycopg

from tests.benchmarks import data
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.load import Load
from tests.processes import eventually

# All through indexes: with ten million older rows this must not take longer than what it checks.
_LATEST = "SELECT coalesce(max(seq), 0) FROM edits WHERE workspace_id = %s"
_SINCE = """
    SELECT count(*), count(*) FILTER (WHERE status = 'applied'), count(*) FILTER (WHERE status = 'queued'),
           count(DISTINCT changes->>'caption')
    FROM edits WHERE workspace_id = %s AND seq > %s
"""
_REVISIONS = "SELECT coalesce(sum(revision), 0)::bigint FROM posts"


class Ledger:
    """Opened before a run, closed after it: every 200 has its row, its effect happened once, nothing is queued."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        with stage.sql() as sql:
            self._from = _one(sql, _LATEST, [data.WORKSPACE])
            self._revisions = _one(sql, _REVISIONS)

    def close(self, load: Load, *, within: float = 30) -> int:
        """Check, and return how many edits were applied; raise WrongMeasureError where the two do not agree.

        Requests that were under way when the generator stopped may have been applied unanswered: one a client.
        """
        self._settle(load.answered, within)
        with self._stage.sql() as sql:
            rows, applied, queued, captions = sql.execute(_SINCE, [data.WORKSPACE, self._from]).fetchone()
            moved = _one(sql, _REVISIONS) - self._revisions
        wrongs = []
        if queued:
            wrongs.append(f"{queued} edits are still queued after {within} s")
        if rows != applied + queued:
            wrongs.append(f"{rows - applied - queued} edits ended otherwise than applied")
        if not load.answered <= applied <= load.answered + load.clients:
            wrongs.append(f"{load.answered} edits were answered and {applied} applied")
        if captions != rows:
            wrongs.append(f"{rows - captions} requests were recorded twice")
        if moved != applied:
            wrongs.append(f"{applied} edits were applied and posts moved by {moved} revisions")
        if wrongs:
            raise WrongMeasureError("; ".join(wrongs))
        return applied

    def _settle(self, answered: int, within: float) -> None:
        """Wait until the queue is empty and nothing new comes: peers keep what is under way in brokers of their own."""
        seen: list[tuple[int, ...]] = []

        def settled() -> bool:
            with self._stage.sql() as sql:
                seen.append(sql.execute(_SINCE, [data.WORKSPACE, self._from]).fetchone())
            return len(seen) > 1 and seen[-1] == seen[-2] and seen[-1][1] >= answered and seen[-1][2] == 0

        try:
            eventually(settled, within=within, every=0.25)
        except AssertionError:
            return  # what is wrong is said in the checks


def _one(sql: psycopg.Connection, statement: str, parameters: list[object] | None = None) -> int:
    return sql.execute(statement.encode(), parameters).fetchone()[0]
