"""What `redraft prune` removes, and what it keeps: every row that a promise or an operator still needs.

Tables are read in the order of their keys, some thousand rows a transaction. So pruning needs no index of its own. It
blocks no other transaction, because final rows are not written. It may be stopped anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from shared.domain.ids import new_id
from shared.store.idempotency import SWEEPING

ROWS_LOOKED_AT = 5000

_CUTOFF = text("SELECT clock_timestamp() - make_interval(secs => :seconds)")


def cutoff(tx: Connection, seconds: float) -> datetime:
    """The moment before which things are old, by the database's clock."""
    moment: datetime = tx.execute(_CUTOFF, {"seconds": seconds}).scalar_one()
    return moment


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows of one table. `doomed` is what of a page may go; `young` says that from this row on none is old enough."""

    table: str
    key: str
    columns: str
    doomed: str
    young: str
    limit: int = ROWS_LOOKED_AT
    first: object = 0
    also: str = ""

    def statement(self, *, remove: bool) -> TextClause:
        gone = f", gone AS (DELETE FROM {self.table} WHERE {self.key} IN (SELECT {self.key} FROM doomed))"
        return text(f"""
            WITH page AS (
                SELECT {self.columns} FROM {self.table} WHERE {self.key} > :after ORDER BY {self.key} LIMIT :limit
            ), doomed AS (SELECT * FROM page WHERE {self.doomed}){(self.also + gone) if remove else ""}
            SELECT max({self.key}), count(*), (SELECT count(*) FROM doomed), bool_and({self.young}) FROM page""")


# A job is needed while it goes on, while its results are young, and while a job that reverts it is either: what it did
# stands in its audit rows.
_NEEDED = """(r.finished_at IS NULL OR r.finished_at >= :cutoff OR EXISTS (
    SELECT FROM reschedules b WHERE b.reverts = r.id AND (b.finished_at IS NULL OR b.finished_at >= :cutoff)))"""

_KINDS: Mapping[str, _Kind] = {
    "bulk jobs": _Kind(
        table="reschedules",
        key="id",
        columns="*",
        doomed=f"id NOT IN (SELECT r.id FROM reschedules r WHERE {_NEEDED})",
        young="created_at >= :cutoff",
        # Its chunks go with it, and a large one has thousands.
        limit=1,
        first="",
        also=", chunks AS (DELETE FROM reschedule_chunks WHERE reschedule_id IN (SELECT id FROM doomed))",
    ),
    # Queued and failed ones stay: an operator may requeue those. So do all edits of a post that has a failed one: what
    # a requeue would overwrite is read from them.
    "edits": _Kind(
        table="edits",
        key="id",
        columns="id, post_id, status, created_at, finalized_at, reschedule_id",
        doomed=f"""status IN ('applied', 'rejected') AND finalized_at < :cutoff
            AND post_id NOT IN (SELECT post_id FROM edits WHERE status = 'failed')
            AND (reschedule_id IS NULL
                OR reschedule_id NOT IN (SELECT r.id FROM reschedules r WHERE {_NEEDED}))""",
        # Ids sort by time, but the clock that made them is not the database's.
        young="id > :newest",
        first="",
    ),
    # Key and body of a try are needed for as long as its post may be published, or be put back to due.
    "publish attempts": _Kind(
        table="publish_attempts",
        key="id",
        columns="id, post_id, started_at, finished_at",
        doomed="""coalesce(finished_at, started_at) < :cutoff AND EXISTS (
            SELECT FROM posts p WHERE p.id = page.post_id
                AND ((p.status = 'posted' AND p.posted_at < :cutoff) OR p.deleted_at < :cutoff))""",
        young="started_at >= :cutoff",
    ),
    "webhook events": _Kind(
        table="webhook_events",
        key="seq",
        columns="seq, status, created_at, finished_at",
        doomed="status <> 'queued' AND finished_at < :cutoff",
        young="created_at >= :cutoff",
    ),
}
# Keys first: one that outlived its edit would promise an answer that is gone. Jobs before the edits that are their
# results.
KEYS = "idempotency keys"
KINDS = (KEYS, *_KINDS)

_FIND = {name: kind.statement(remove=False) for name, kind in _KINDS.items()}
_REMOVE = {name: kind.statement(remove=True) for name, kind in _KINDS.items()}
_COUNT_KEYS = text("SELECT count(*) FROM idempotency_keys WHERE created_at < :cutoff")
# The same lock as in `forget_expired`: two that delete the same rows in different orders would wait for each other.
_SWEEP = text("SELECT pg_advisory_xact_lock(:sweeping)")
_REMOVE_KEYS = text("""
    DELETE FROM idempotency_keys WHERE (api_key_id, key) IN (
        SELECT api_key_id, key FROM idempotency_keys WHERE created_at < :cutoff ORDER BY created_at LIMIT :limit)""")


@dataclass(frozen=True, slots=True)
class Swept:
    """One step: how many rows it removed, or found, and where to go on from; None at the end."""

    rows: int
    after: Any


def sweep(tx: Connection, kind: str, before: datetime, after: Any = None, *, remove: bool) -> Swept:
    """Look at the next rows of a kind, in a transaction of their own; remove those that may go, or count them."""
    if kind == KEYS:
        return _sweep_keys(tx, before, remove=remove)
    what = _KINDS[kind]
    given: dict[str, Any] = {
        "after": what.first if after is None else after,
        "limit": what.limit,
        "cutoff": before,
    }
    if kind == "edits":
        # A day beyond the cut: no two clocks are so far apart.
        given["newest"] = new_id("edit", before.timestamp() + 86_400)
    last, looked, found, young = tx.execute((_REMOVE if remove else _FIND)[kind], given).one()
    return Swept(found, None if looked < what.limit or young else last)


def _sweep_keys(tx: Connection, before: datetime, *, remove: bool) -> Swept:
    if not remove:
        return Swept(tx.execute(_COUNT_KEYS, {"cutoff": before}).scalar_one(), None)
    tx.execute(_SWEEP, {"sweeping": SWEEPING})
    rows = tx.execute(_REMOVE_KEYS, {"cutoff": before, "limit": ROWS_LOOKED_AT}).rowcount
    return Swept(rows, rows if rows == ROWS_LOOKED_AT else None)
