"""Edits as operators list them: by state, post, workspace, account, key, request, error, time, and bulk job.

Each list follows one index, page by page to its end. One call looks at a bounded number of rows, so that a filter that
matches few of them cannot make it slow. A list that was cut says so, and says from where it goes on.

Single edits and the moves of bulk jobs need no index of their own, which every edit would pay for twice. The ids of a
job's moves follow from the job's id (`audit_id`) and stand side by side. So a job's list is a range of the primary key,
and a list of single edits jumps over the moves of a job that it meets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from shared.domain.edit_histories import EditHistory
from shared.domain.ids import first_id
from shared.domain.reschedule_jobs import MOST_ORDINALS, audit_id
from shared.store.edits import AFTER

LOOKED_AT = 20_000
"""Rows that one statement looks at."""
LOOKS = 10
"""Statements of one call, where a filter matches few rows."""
QUEUE_LOOKED_AT = 100_000
"""Waiting edits that are put in order, the longest waiting first."""
CLOCKS_APART: Final = 3600.0
"""Seconds. An id holds the time of the API's clock, `created_at` that of the database: never this far apart."""

COLUMNS = f"""id, seq, post_id, workspace_id, status, changes, if_match, requested_by, request_id, reschedule_id,
    created_at, attempts, started_at, lock_wait_ms, finalized_at, revision, before, {AFTER},
    error_code, error_message, error_details, clock_timestamp()"""
"""The columns of EditHistory, in its order."""

Place = str | int
"""Where an edit stands in its list: its id, or its number in the order."""


@dataclass(frozen=True, slots=True)
class EditFilter:
    """Which edits are meant: those that everything given here matches. The moves of bulk jobs are left out, unless of
    one post or of one job.

    `accounts`: ids of accounts. `key`: the name or the id of an API key. `error`: a part of the error's code or
    message, in small or capital letters. `group`: the id of an ErrorGroup. `since` and `until`: when an edit was
    accepted; aware, `until` itself is not meant. `up_to`: a number in the order; later edits are not meant.
    """

    status: str | None = None
    post_id: str | None = None
    workspace_id: str | None = None
    accounts: tuple[str, ...] | None = None
    key: str | None = None
    request_id: str | None = None
    error: str | None = None
    group: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    job_id: str | None = None
    up_to: int | None = None

    def given(self) -> dict[str, Any]:
        """What is given, by its name."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        given = {name: value for name, value in values if value is not None}
        return given | ({"accounts": list(self.accounts)} if self.accounts is not None else {})


ERROR_GROUP: Final = "md5(concat_ws(chr(31), error_code, error_message))"
"""The id of the group of edits with this error, in SQL."""

CONDITIONS: Final[Mapping[str, str]] = {
    "status": "status = :status",
    "post_id": "post_id = :post_id",
    "workspace_id": "workspace_id = :workspace_id",
    # OFFSET 0: a look-up for each edit (pk_posts), never a join that reads all posts.
    "accounts": """EXISTS (SELECT FROM posts p WHERE p.id = looked_at.post_id
            AND p.account_id = ANY(CAST(:accounts AS text[])) OFFSET 0)""",
    "key": "(requested_by = :key OR api_key_id = :key)",
    "request_id": "request_id = :request_id",
    "error": "strpos(lower(concat_ws(': ', error_code, error_message)), lower(:error)) > 0",
    "group": f"{ERROR_GROUP} = :group",
    "since": "created_at >= :since",
    "until": "created_at < :until",
    "job_id": "reschedule_id = :job_id",
    "up_to": "seq <= :up_to",
}


@dataclass(frozen=True, slots=True)
class _Path:
    """An index that a list follows from its end to its beginning. `column`: what it sorts by, `id` or `seq`. `scope`:
    the conditions that the index serves, if any. `leads`: what `column` stands behind in the index, and its value;
    compared together, no other index can serve the comparison.
    """

    index: str
    column: str
    scope: str
    leads: tuple[str, str] = ("", "")

    def edge(self, compare: str, place: str) -> str:
        """The condition that a row stands before or behind a place."""
        value = f"CAST(:{place} AS {'text' if self.column == 'id' else 'bigint'})"
        lead, led_by = self.leads
        if lead:
            return f"({lead}, {self.column}) {compare} (CAST({led_by} AS text), {value})"
        return f"{self.column} {compare} {value}"


_PATHS: Final = {
    "post": _Path("ix_edits_post", "seq", "post_id = :post_id"),
    "moves": _Path("pk_edits", "id", "id BETWEEN :first_move AND :last_move"),
    "request": _Path(
        "ix_edits_request", "id", "request_id = :request_id AND reschedule_id IS NULL",
        ("request_id", ":request_id"),
    ),
    "failed": _Path("ix_edits_failed", "seq", "status = 'failed'"),
    "rejected": _Path("ix_edits_rejected", "id", "status = 'rejected'"),
    # These two with the moves of bulk jobs, which are passed over.
    "workspace": _Path("ix_edits_workspace", "seq", "workspace_id = :workspace_id"),
    # ids sort by the time at which they were made.
    "single": _Path("pk_edits", "id", ""),
}  # fmt: skip
_WITH_MOVES: Final = (_PATHS["workspace"], _PATHS["single"])


def _path(wanted: EditFilter) -> _Path | None:
    """The index for a list. None: that of the queue, which is in another order."""
    if wanted.post_id is not None:
        return _PATHS["post"]
    if wanted.job_id is not None:
        return _PATHS["moves"]
    if wanted.request_id is not None:
        return _PATHS["request"]
    if wanted.status == "queued":
        return None
    if wanted.status in ("failed", "rejected"):
        return _PATHS[wanted.status]
    # By times, the ids lead to the place at which to begin and to the one at which to end. A number in the order does
    # not: an edit that was requeued has a new one.
    whole = wanted.workspace_id is None or wanted.until is not None or wanted.since is not None
    return _PATHS["single" if whole else "workspace"]


@dataclass(frozen=True, slots=True)
class EditPage:
    """A page of a list. `next_place`: where the next page goes on; None at the list's end. `back_to`: the page was cut
    before it was full, since `looked_at` rows had been looked at; the last of them was accepted then. `looked_at`
    without `back_to`: so many waiting edits were put in order, and there are more.
    """

    edits: list[EditHistory]
    next_place: Place | None = None
    back_to: datetime | None = None
    looked_at: int = 0


def page(tx: Connection, wanted: EditFilter, after: Place | None = None, limit: int = 50) -> EditPage:
    """A page of edits, newest first; queued ones, unless of one post or request, the longest waiting first.

    `after`: the `next_place` of the page before. One of another list begins from the beginning.
    """
    path = _path(wanted)
    if path is None:
        return _of_queue(tx, wanted, after if isinstance(after, int) else -1, limit)
    tx.execute(_IN_ORDER)
    place: Place | None = after if isinstance(after, str if path.column == "id" else int) else None
    found: list[EditHistory] = []
    for _ in range(LOOKS):
        rows, end, back_to = _look(tx, path, wanted, place, limit + 1 - len(found))
        found += rows
        if len(found) > limit:
            return EditPage(found[:limit], getattr(found[limit - 1], path.column))
        if end is None or back_to is None:
            return EditPage(found)
        place = end
    return EditPage(found, place, back_to, LOOKS * LOOKED_AT)


# The index gives the order. A plan that sorts is never the faster one for a page, whatever the statistics say.
_IN_ORDER = text("SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)")


def _look(
    tx: Connection, path: _Path, wanted: EditFilter, after: Place | None, limit: int
) -> tuple[list[EditHistory], Place | None, datetime | None]:
    """The rows of one look, and where it ended; None: at the list's end."""
    given, names = wanted.given(), frozenset(wanted.given())
    bound = given | {"looked_at": LOOKED_AT, "limit": limit} | _bounds(path, wanted, after)
    shape = frozenset(name for name in ("after", "from_id") if bound.get(name) is not None)
    rows = tx.execute(_statement(path, names, shape), bound).all()
    end: Any = None
    if len(rows) < limit:
        end = tx.execute(_end_statement(path, shape), bound).one_or_none()
    if end is not None:
        # Looked at again, down to a fixed place: the first one's end moved with every edit that came in between.
        bound |= {"end": end.place, "looked_at": 2 * LOOKED_AT}
        rows = tx.execute(_statement(path, names, shape | {"end"}), bound).all()
    edits = [EditHistory(*row) for row in rows]
    if end is None:
        return edits, None, None
    if end.job_id is not None and path is _PATHS["single"]:
        # Never back: a row that was put in by hand may have another id than the job's first.
        return edits, min(end.place, audit_id(end.job_id, 0)), end.created_at
    return edits, end.place, end.created_at


def _bounds(path: _Path, wanted: EditFilter, after: Place | None) -> dict[str, Place | None]:
    """Where the index is entered and left: from the place of the page before, and by the times that are asked for."""
    if path is _PATHS["moves"]:
        job_id = wanted.job_id or ""
        return {"after": after, "first_move": audit_id(job_id, 0), "last_move": audit_id(job_id, MOST_ORDINALS)}
    if path.column != "id":
        return {"after": after}
    before = first_id("edit", _within(wanted.until).timestamp() + CLOCKS_APART) if wanted.until is not None else None
    places = [str(place) for place in (after, before) if place is not None]
    from_id = first_id("edit", _within(wanted.since).timestamp() - CLOCKS_APART) if wanted.since is not None else None
    return {"after": min(places, default=None), "from_id": from_id}


def _within(at: datetime) -> datetime:
    """That time, or the first or last one that an id can hold."""
    return min(max(at, datetime(1971, 1, 1, tzinfo=UTC)), datetime(9000, 1, 1, tzinfo=UTC))


def _scope(path: _Path, shape: frozenset[str]) -> str:
    edges = {"after": path.edge("<", "after"), "from_id": path.edge(">=", "from_id"), "end": path.edge(">=", "end")}
    return " AND ".join(filter(None, [path.scope, *(edges[name] for name in sorted(shape))])) or "true"


@lru_cache(maxsize=512)
def _statement(path: _Path, names: frozenset[str], shape: frozenset[str]) -> TextClause:
    filters = [CONDITIONS[name] for name in sorted(names)]
    if path in _WITH_MOVES:
        filters.append("reschedule_id IS NULL")
    # The inner LIMIT keeps the filters out of the choice of the index, and bounds what is looked at.
    return text(f"""
        SELECT {COLUMNS} FROM (
            SELECT * FROM edits WHERE {_scope(path, shape)} ORDER BY {path.column} DESC LIMIT :looked_at
        ) looked_at
        WHERE {" AND ".join(filters) or "true"} ORDER BY {path.column} DESC LIMIT :limit""")


@lru_cache(maxsize=64)
def _end_statement(path: _Path, shape: frozenset[str]) -> TextClause:
    return text(f"""
        SELECT {path.column} AS place, created_at, reschedule_id AS job_id FROM edits WHERE {_scope(path, shape)}
        ORDER BY {path.column} DESC OFFSET :looked_at - 1 LIMIT 1""")


@lru_cache(maxsize=512)
def _queue_statement(names: frozenset[str]) -> TextClause:
    filters = " AND ".join(CONDITIONS[name] for name in sorted(names))
    # ix_edits_queue is in the order of posts. So the waiting edits are put in order first, and only a page is read.
    return text(f"""
        WITH waiting AS MATERIALIZED (
            SELECT id FROM (SELECT * FROM edits WHERE status = 'queued' LIMIT :looked_at) looked_at
            WHERE seq > CAST(:after AS bigint) AND {filters} ORDER BY seq LIMIT :limit
        )
        SELECT {COLUMNS} FROM edits WHERE id = ANY(ARRAY(SELECT id FROM waiting)) AND status = 'queued'
        ORDER BY seq""")


_QUEUED = text("SELECT count(*) FROM (SELECT FROM edits WHERE status = 'queued' LIMIT :looked_at) looked_at")


def _of_queue(tx: Connection, wanted: EditFilter, after: int, limit: int) -> EditPage:
    given = wanted.given()
    bound = given | {"after": after, "looked_at": QUEUE_LOOKED_AT, "limit": limit + 1}
    rows = tx.execute(_queue_statement(frozenset(given)), bound).all()
    found = [EditHistory(*row) for row in rows]
    waiting: int = tx.execute(_QUEUED, {"looked_at": QUEUE_LOOKED_AT + 1}).scalar_one()
    cut = QUEUE_LOOKED_AT if waiting > QUEUE_LOOKED_AT else 0
    if len(found) > limit:
        return EditPage(found[:limit], found[limit - 1].seq, looked_at=cut)
    return EditPage(found, looked_at=cut)
