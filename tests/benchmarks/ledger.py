"""What the database says of a run, against what the clients were told."""

from tests.benchmarks import data
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.load import Load
from tests.waiting import eventually

# All through indexes: with ten million older rows this must not take longer than what it checks.
_UNDER_WAY = """
    SELECT (SELECT coalesce(max(seq), 0) FROM edits WHERE workspace_id = %s),
           (SELECT count(*) FROM edits WHERE status = 'queued')
"""
# In one statement, hence as of one moment.
_OPENING = """
    SELECT (SELECT coalesce(max(seq), 0) FROM edits WHERE workspace_id = %s),
           (SELECT coalesce(sum(revision), 0)::bigint FROM posts)
"""
# No two requests carry the same caption, nor the same first URL where they carry slides (load.lua).
_SINCE = """
    SELECT count(*) FILTER (WHERE single), count(*) FILTER (WHERE single AND status = 'applied'),
           count(*) FILTER (WHERE single AND status = 'queued'),
           count(DISTINCT coalesce(changes->>'caption', changes->'contentUrl'->>0)) FILTER (WHERE single),
           count(*) FILTER (WHERE NOT single),
           (SELECT coalesce(sum(revision), 0)::bigint FROM posts)
    FROM (SELECT status, changes, reschedule_id IS NULL AS single FROM edits WHERE workspace_id = %s AND seq > %s) e
"""
_SETTLED = """
    SELECT count(*), count(*) FILTER (WHERE status = 'applied'), count(*) FILTER (WHERE status = 'queued')
    FROM edits WHERE workspace_id = %s AND seq > %s AND reschedule_id IS NULL
"""
EVERY = 0.25


class Ledger:
    """Opened before a run, closed after it: every 200 has its row, its effect happened once, nothing is queued."""

    def __init__(self, stage: Stage, *, within: float = 30) -> None:
        """Wait until what came before has ended, and remember how things stand.

        The generator leaves a request a client under way when it stops, a warm-up's too. Opened while such an edit
        waits, the ledger would count its effect to the run and its row to the time before.
        """
        self._stage = stage
        looks = []

        def quiet() -> bool:
            looks.append(self._read(_UNDER_WAY, data.WORKSPACE))
            return len(looks) > 1 and looks[-1] == looks[-2] and looks[-1][1] == 0

        try:
            eventually(quiet, within=within, every=EVERY)
        except AssertionError as error:
            raise WrongMeasureError(f"before the run {looks[-1][1]} edits are queued, {within} s long") from error
        self._from, self._revisions = self._read(_OPENING, data.WORKSPACE)

    def close(self, load: Load, *, within: float = 30, moved_by_jobs: int = 0) -> int:
        """Check, and return how many edits were applied; raise WrongMeasureError where the two do not agree.

        Requests that were under way when the generator stopped may have been applied unanswered: one a client.
        `moved_by_jobs`: how many posts bulk jobs moved meanwhile; each has its audit row and its own revision.
        """
        self._settle(load.edits, within)
        rows, applied, queued, distinct, audited, revisions = self._read(_SINCE, data.WORKSPACE, self._from)
        moved = revisions - self._revisions
        wrongs = []
        if queued:
            wrongs.append(f"{queued} edits are still queued after {within} s")
        if rows != applied + queued:
            wrongs.append(f"{rows - applied - queued} edits ended otherwise than applied")
        if not load.edits <= applied <= load.edits + load.clients * load.edits_each:
            wrongs.append(f"{load.edits} edits were answered and {applied} applied")
        if distinct != rows:
            wrongs.append(f"{rows - distinct} requests were recorded twice")
        if audited != moved_by_jobs:
            wrongs.append(f"jobs moved {moved_by_jobs} posts and left {audited} audit rows")
        if moved != applied + audited:
            by_jobs = f" and {audited} moves of jobs recorded" if audited else ""
            wrongs.append(f"{applied} edits were applied{by_jobs} and posts moved by {moved} revisions")
        if wrongs:
            raise WrongMeasureError("; ".join(wrongs))
        return applied

    def _settle(self, answered: int, within: float) -> None:
        """Wait until the queue is empty and nothing new comes: peers keep what is under way in brokers of their own."""
        seen = []

        def settled() -> bool:
            seen.append(self._read(_SETTLED, data.WORKSPACE, self._from))
            return len(seen) > 1 and seen[-1] == seen[-2] and seen[-1][1] >= answered and seen[-1][2] == 0

        try:
            eventually(settled, within=within, every=EVERY)
        except AssertionError:
            return  # what is wrong is said in the checks

    def _read(self, statement: str, *parameters: object) -> tuple[int, ...]:
        with self._stage.sql() as sql:
            [row] = sql.execute(statement.encode(), parameters)
        return row
