"""Which bulk jobs are live, and whose turn it is in the lane that workspaces share (docs/fairness.md)."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

_LIVE = text("""
    SELECT id, touched_at < clock_timestamp() - make_interval(secs => :age),
        CASE WHEN total IS NULL THEN workspace_id END
    FROM reschedules WHERE status IN ('queued', 'running') ORDER BY touched_at""")


class Live(NamedTuple):
    """A live job. `stalled`: no worker has touched it for long. `freezes_in`: its workspace, while its posts are still
    to be chosen.
    """

    id: str
    stalled: bool
    freezes_in: str | None


def live(tx: Connection, age: float) -> list[Live]:
    """All live jobs, the longest untouched first. `age`: seconds without a touch after which one is stalled."""
    return [Live(*row) for row in tx.execute(_LIVE, {"age": age})]


# The bulk lane is shared by workspaces in turn; one whose jobs have not begun comes first. A workspace's last
# turn is the last time that one of its live or newest jobs was touched: no index over that time, which would have every
# chunk write to it. An older job that ended since had its turns between theirs.
_LAST_TURN = """(
        SELECT max(touched_at) FILTER (WHERE touched_at <> created_at) FROM (
            SELECT l.touched_at, l.created_at FROM live l WHERE l.workspace_id = {workspace}
            UNION ALL
            (SELECT r.touched_at, r.created_at FROM reschedules r WHERE r.workspace_id = {workspace}
             ORDER BY r.created_at DESC, r.id DESC LIMIT 40)
        ) AS touched)"""
_LONGER_WITHOUT_A_TURN = text(f"""
    WITH live AS MATERIALIZED (
        SELECT id, workspace_id, created_at, touched_at FROM reschedules WHERE status IN ('queued', 'running')
    ), mine AS MATERIALIZED (
        SELECT workspace_id FROM live WHERE id = :id
    ), next AS MATERIALIZED (
        SELECT DISTINCT ON (workspace_id) id, workspace_id, touched_at FROM live
        WHERE workspace_id <> (SELECT workspace_id FROM mine) AND id <> ALL(:without)
        ORDER BY workspace_id, touched_at, id
    ), turns AS MATERIALIZED (
        SELECT id, touched_at, {_LAST_TURN.format(workspace="next.workspace_id")} AS turn FROM next
    )
    SELECT id FROM turns
    WHERE coalesce(turn, '-infinity') < {_LAST_TURN.format(workspace="(SELECT workspace_id FROM mine)")}
    ORDER BY turn NULLS FIRST, touched_at, id LIMIT 1""")


def longer_without_a_turn(tx: Connection, job_id: str, without: Sequence[str] = ()) -> str | None:
    """Of the live jobs of other workspaces but those in `without`, the one that waits the longest, where its workspace
    has been without a turn for longer than this live job's. None where it is this job's turn.
    """
    given = {"id": job_id, "without": list(without)}
    found: str | None = tx.execute(_LONGER_WITHOUT_A_TURN, given).scalar_one_or_none()
    return found
