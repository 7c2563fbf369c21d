"""What clients read: one post, one edit, an account's name, and lists that page by keyset (docs/api.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic_core import to_json
from sqlalchemy import Connection, TextClause, text

from shared.domain.holds import Hold
from shared.domain.posts import Post
from shared.store import holds as holds_store
from shared.store.edits import AFTER
from shared.store.hold_tables import HELD_BY_SCOPE
from shared.store.posts import COLUMNS, post_of

T = TypeVar("T")
Place = tuple[Any, ...]

LOOKED_AT = 20_000
"""How many rows one page looks at. A filter that matches few of them gets a short page and a place to go on from, so
that no table is too large and no filter too rare for a quick answer."""

PAGE_BYTES = 1024 * 1024
"""Bytes of a page, as JSON. A row more is on the next page: a client that asks for pages and does not read them costs
memory until its time is up, and a hundred of the largest posts are 8 MB, of the largest edits 17."""

# A row carries the time at which its transaction began (transaction_timeout is 15 s; this leaves room).
_LONGEST_TRANSACTION = timedelta(minutes=1)

_POST = text(f"SELECT {COLUMNS} FROM posts WHERE id = :id AND workspace_id = :workspace AND deleted_at IS NULL")


def post(tx: Connection, workspace_id: str, post_id: str) -> Post | None:
    """A workspace's post, unless it was deleted."""
    row = tx.execute(_POST, {"id": post_id, "workspace": workspace_id}).one_or_none()
    return post_of(row) if row else None


def post_and_hold(tx: Connection, workspace_id: str, post_id: str) -> tuple[Post, Hold | None] | None:
    """The same, and what holds it; a post that does not wait is not held."""
    found = post(tx, workspace_id, post_id)
    return None if found is None else (found, holds_store.effective(tx, [post_id]).get(post_id))


@dataclass(frozen=True, slots=True)
class EditRecord:
    """An edit as its row has it: the resource of GET /v1/edits/{editId}."""

    id: str
    post_id: str
    status: str
    changes: dict[str, Any]
    created_at: datetime
    requested_by: str
    seq: int = 0
    finalized_at: datetime | None = None
    attempts: int = 0
    revision: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: list[dict[str, str]] | None = None


EDIT_COLUMNS = f"""id, post_id, status, changes, created_at, requested_by, seq, finalized_at, attempts, revision,
    before, {AFTER}, error_code, error_message, error_details"""

_EDIT = text(f"SELECT {EDIT_COLUMNS} FROM edits WHERE id = :id AND workspace_id = :workspace")


def edit(tx: Connection, workspace_id: str, edit_id: str) -> EditRecord | None:
    """A workspace's edit."""
    row = tx.execute(_EDIT, {"id": edit_id, "workspace": workspace_id}).one_or_none()
    return EditRecord(*row) if row else None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the place that the next page goes on from; None where the list ends."""

    items: list[T]
    next_place: Place | None


@dataclass(frozen=True, slots=True, eq=False)
class _List:
    """A list in the order of an index: `place` are the columns of that order, all descending unless `ascending`.
    `scope` are conditions that the index serves, `filters` those that are held against each row it gives.
    """

    table: str
    columns: str
    place: tuple[str, ...]
    types: tuple[str, ...]
    scope: Mapping[str, str]
    filters: Mapping[str, str]
    ascending: bool = False

    @property
    def order(self) -> str:
        """What stands behind ORDER BY."""
        return ", ".join(f"{column} {'ASC' if self.ascending else 'DESC'}" for column in self.place)

    def behind(self) -> str:
        """Rows behind the place `after_0`, `after_1`."""
        return self._compared(">" if self.ascending else "<", "after_")

    def down_to(self) -> str:
        """Rows down to the place `end_0`, `end_1`."""
        return self._compared("<=" if self.ascending else ">=", "end_")

    def _compared(self, sign: str, prefix: str) -> str:
        given = ", ".join(f"CAST(:{prefix}{number} AS {kind})" for number, kind in enumerate(self.types))
        return f"({', '.join(self.place)}) {sign} ({given})"


_POSTS = _List(
    table="posts",
    columns=f"{COLUMNS}, held_at, missed_revision",
    place=("created_at", "id"),
    types=("timestamptz", "text"),
    scope={"workspace": "workspace_id = :workspace"},
    filters={
        "visible": "NOT deleted",
        "status": "status = :status",
        "platform": "platform = :platform",
        "content_type": "content_type = :content_type",
        "account": "account_id = :account",
        "scheduled_from": "scheduled_time >= :scheduled_from",
        "scheduled_to": "scheduled_time < :scheduled_to",
        "held": f"""(status IN ('generated', 'pending_render') AND (held_at IS NOT NULL
            OR missed_revision IS NOT DISTINCT FROM schedule_revision
            OR {HELD_BY_SCOPE.replace("posts.", "looked_at.")})) = CAST(:held AS boolean)""",
    },
)
# What goes out next. The index serves the bounds of the time too, so that a page begins at them.
_OF_THE_TIME = ("scheduled_from", "scheduled_to")
_POSTS_BY_TIME = replace(
    _POSTS,
    place=("scheduled_time", "id"),
    scope={**_POSTS.scope, **{name: _POSTS.filters[name] for name in _OF_THE_TIME}},
    filters={name: condition for name, condition in _POSTS.filters.items() if name not in _OF_THE_TIME},
    ascending=True,
)
_POSTS_IN: Mapping[object, _List] = {
    None: _POSTS,
    "scheduledTime": _POSTS_BY_TIME,
    "-scheduledTime": replace(_POSTS_BY_TIME, ascending=False),
}
SORTS = ("scheduledTime", "-scheduledTime")
"""The orders of a list of posts, beside the usual one."""
_EDITS = _List(
    table="edits",
    columns=EDIT_COLUMNS,
    place=("seq",),
    types=("bigint",),
    scope={"workspace": "workspace_id = :workspace", "post": "post_id = :post"},
    filters={
        "status": "status = :status",
        "created_from": "created_at >= :created_from",
        "created_to": "created_at < :created_to",
    },
)

# The index gives the order; a plan that reads everything and sorts it is never the faster one for a page, whatever
# the statistics say of a filter.
_IN_ORDER = text("SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)")


@lru_cache(maxsize=512)
def _page_of(wanted: _List, names: frozenset[str], *, after: bool, down_to: bool) -> TextClause:
    scope = [condition for name, condition in wanted.scope.items() if name in names]
    scope += [wanted.behind()] * after + [wanted.down_to()] * down_to
    filters = [condition for name, condition in wanted.filters.items() if name in names] or ["true"]
    order = wanted.order
    # The inner LIMIT keeps the filters out of the choice of the index, and bounds what is looked at.
    return text(f"""
        SELECT * FROM (
            SELECT {wanted.columns} FROM {wanted.table} WHERE {" AND ".join(scope)} ORDER BY {order} LIMIT :looked_at
        ) looked_at WHERE {" AND ".join(filters)} ORDER BY {order} LIMIT :limit""")


@lru_cache(maxsize=64)
def _end_of(wanted: _List, names: frozenset[str], *, after: bool) -> TextClause:
    scope = [condition for name, condition in wanted.scope.items() if name in names]
    scope += [wanted.behind()] * after
    order, place = wanted.order, ", ".join(wanted.place)
    columns = ", ".join(dict.fromkeys((*wanted.place, "created_at")))
    # The newest time in the last quarter of what was looked at, not the last row's own: an edit that was requeued
    # stands among newer ones, with the time at which it was accepted first, and a list must not end at it.
    return text(f"""
        WITH tail AS MATERIALIZED (
            SELECT {columns} FROM {wanted.table} WHERE {" AND ".join(scope)} ORDER BY {order}
            OFFSET :looked_at - 1 - :looked_at / 4 LIMIT :looked_at / 4 + 1
        )
        SELECT {place}, (SELECT max(created_at) FROM tail) AS back_to FROM tail
        ORDER BY {order} OFFSET :looked_at / 4 LIMIT 1""")


def _page(
    tx: Connection, wanted: _List, given: Mapping[str, object], after: Place | None, limit: int
) -> tuple[list[Any], Place | None]:
    """The rows of a page, and the place that the next one goes on from."""
    tx.execute(_IN_ORDER)
    names, goes_on = frozenset(given), after is not None
    bound: dict[str, object] = {**given, "limit": limit + 1, "looked_at": LOOKED_AT}
    bound |= {f"after_{number}": value for number, value in enumerate(after or ())}
    rows = list(tx.execute(_page_of(wanted, names, after=goes_on, down_to=False), bound))
    end: Place | None = None
    if len(rows) <= limit and _fitting(rows) == len(rows):
        # Not filled: either the list ends here, or this is as far as one page looks.
        end = _end(tx.execute(_end_of(wanted, names, after=goes_on), bound).one_or_none(), given.get("created_from"))
    if end is not None:
        # Looked at again, down to a fixed place: the first one's end moved with every row that came in between.
        bound |= {f"end_{number}": value for number, value in enumerate(end)} | {"looked_at": LOOKED_AT * 2}
        rows = list(tx.execute(_page_of(wanted, names, after=goes_on, down_to=True), bound))
    count = _fitting(rows[:limit])
    if count < len(rows):
        return rows[:count], tuple(getattr(rows[count - 1], column) for column in wanted.place)
    return rows, end


def _fitting(rows: Sequence[Any]) -> int:
    """How many of the rows make a page of at most PAGE_BYTES; one at least, if there is one."""
    size = 0
    for count, row in enumerate(rows):
        size += len(to_json(tuple(row)))
        if size > PAGE_BYTES and count:
            return count
    return len(rows)


def _end(row: Any, created_from: object) -> Place | None:
    """The place that a page looked down to, or None if nothing below it can be meant: a row that stands below another
    was made before it.
    """
    if row is None or (isinstance(created_from, datetime) and row.back_to < created_from - _LONGEST_TRANSACTION):
        return None
    return tuple(row)[:-1]


def posts_page(
    tx: Connection, workspace_id: str, filters: Mapping[str, object], after: Place | None, limit: int
) -> Page[Post]:
    """A page of a workspace's posts, newest first. `filters`: status, platform, content_type, account, held ("true"
    or "false"), scheduled_from and scheduled_to (aware), and `sort`, which is one of SORTS; `after`: an earlier page's
    `next_place`.
    """
    given = {"workspace": workspace_id, "visible": True, **filters}
    order = given.pop("sort", None)
    rows, place = _page(tx, _POSTS_IN[order], given, after, limit)
    return Page([post_of(row) for row in rows], place)


def edits_page(
    tx: Connection, workspace_id: str, filters: Mapping[str, object], after: Place | None, limit: int
) -> Page[EditRecord]:
    """A page of a workspace's edits, newest first, those of deleted posts too. `filters`: status, post, created_from
    and created_to (aware); `after`: an earlier page's `next_place`.
    """
    rows, place = _page(tx, _EDITS, {"workspace": workspace_id, **filters}, after, limit)
    return Page([EditRecord(*row) for row in rows], place)


def posts_edits_page(
    tx: Connection, workspace_id: str, post_id: str, after: Place | None, limit: int
) -> Page[EditRecord] | None:
    """A page of a post's audit trail, newest first; None for a post that the workspace does not have."""
    if post(tx, workspace_id, post_id) is None:
        return None
    return edits_page(tx, workspace_id, {"post": post_id}, after, limit)
