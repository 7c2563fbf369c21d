"""Many edits mended at once: failed edits by their errors, what a requeue of them would overwrite, requeue and discard.

Each transaction is bounded. Whatever was done stays done, so that an act that was interrupted is simply begun again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from pydantic_core import to_json
from sqlalchemy import Connection, TextClause, text

from shared.domain import edit_histories
from shared.domain.edit_histories import EditHistory, Prospect
from shared.domain.lifecycle import EditStatus
from shared.domain.requeues import Act
from shared.store import operator_actions
from shared.store import posts as posts_store
from shared.store.acts import Actor
from shared.store.edit_lists import COLUMNS, CONDITIONS, ERROR_GROUP, EditFilter

LOOKED_AT = 100_000
"""Failed edits that are grouped, the newest; and waiting edits of which a filter chooses."""
NEWER_AT_MOST = 2
"""Later changes that touch the fields of one edit, the newest, as far as they are read: a page has a thousand edits."""
TOGETHER: Final = 200
"""Edits in one transaction, which has their posts locked for a fraction of a second."""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failed edits with one error. `id` names the group in an address; `newest`: when the latest of them failed."""

    id: str
    code: str
    message: str
    count: int
    posts: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class ErrorGroups:
    """The most frequent error first. `total`: the failed edits that match; `distinct`: how many groups they make;
    `truncated`: only the newest LOOKED_AT failed edits were looked at. `now`: the database's clock.
    """

    groups: list[ErrorGroup]
    total: int
    distinct: int
    truncated: bool
    now: datetime


@lru_cache(maxsize=64)
def _groups_statement(names: frozenset[str]) -> TextClause:
    filters = " AND ".join(CONDITIONS[name] for name in sorted(names))
    # ix_edits_failed
    return text(f"""
        SELECT {ERROR_GROUP}, error_code, coalesce(error_message, ''), count(*), count(DISTINCT post_id),
            max(finalized_at), CAST(sum(count(*)) OVER () AS bigint), count(*) OVER ()
        FROM (SELECT * FROM edits WHERE status = 'failed' ORDER BY seq DESC LIMIT :looked_at) looked_at
        WHERE {filters} GROUP BY error_code, error_message
        ORDER BY count(*) DESC, max(finalized_at) DESC LIMIT :limit""")


_MORE = text("SELECT EXISTS (SELECT FROM edits WHERE status = 'failed' OFFSET :looked_at)")


def groups(tx: Connection, wanted: EditFilter, limit: int = 100) -> ErrorGroups:
    """The failed edits that a filter means, by error."""
    given = wanted.given() | {"status": EditStatus.FAILED.value}
    rows = tx.execute(_groups_statement(frozenset(given)), given | {"looked_at": LOOKED_AT, "limit": limit}).all()
    total, distinct = (rows[0][6], rows[0][7]) if rows else (0, 0)
    truncated: bool = tx.execute(_MORE, {"looked_at": LOOKED_AT}).scalar_one()
    return ErrorGroups([ErrorGroup(*row[:6]) for row in rows], total, distinct, truncated, posts_store.clock(tx))


@lru_cache(maxsize=64)
def _chosen_statement(names: frozenset[str], status: str) -> TextClause:
    filters = " AND ".join(CONDITIONS[name] for name in sorted(names))
    # ix_edits_failed, from its beginning; or ix_edits_queue, which is in the order of posts.
    source = {
        "failed": "status = 'failed' AND seq > CAST(:after AS bigint) ORDER BY seq",
        "queued": "status = 'queued' AND seq > CAST(:after AS bigint)",
    }[status]
    return text(f"""
        SELECT id, seq FROM (SELECT * FROM edits WHERE {source} LIMIT :looked_at) looked_at
        WHERE {filters} ORDER BY seq LIMIT :limit""")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Edits that a filter means, the oldest first. `next_place`: where to go on; None at the end."""

    ids: list[str]
    next_place: int | None


_LAST_LOOKED_AT = text("""
    SELECT seq FROM edits WHERE status = 'failed' AND seq > CAST(:after AS bigint)
    ORDER BY seq OFFSET :looked_at - 1 LIMIT 1""")


def choose(tx: Connection, wanted: EditFilter, limit: int, after: int = -1) -> Chosen:
    """The failed edits that a filter means, at most `limit`; the queued ones, if the filter says so. Of queued edits
    LOOKED_AT are looked at, in any order.
    """
    status = wanted.status or EditStatus.FAILED.value
    given = wanted.given() | {"status": status}
    bound = given | {"after": after, "looked_at": LOOKED_AT, "limit": limit}
    rows = tx.execute(_chosen_statement(frozenset(given), status), bound).all()
    ids = [row.id for row in rows]
    if len(rows) == limit:
        return Chosen(ids, rows[-1].seq)
    if status == EditStatus.QUEUED:
        return Chosen(ids, None)
    end = tx.execute(_LAST_LOOKED_AT, {"after": after, "looked_at": LOOKED_AT}).scalar_one_or_none()
    return Chosen(ids, end)


_LAST_SEQ = text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('edits', 'seq')), 0)")


def last_place(tx: Connection) -> int:
    """The number of the edit that was accepted or requeued last. An edit that is requeued from now on, and fails once
    more, has a higher one.
    """
    return int(tx.execute(_LAST_SEQ).scalar_one())


_SOME = text(f"SELECT {COLUMNS} FROM edits WHERE id = ANY(:ids) ORDER BY seq")
# ix_edits_post, for each edit. Only what touches the same fields counts as overwritten, whatever else came after it.
_NEWER_OF_ONE = """(
        SELECT {columns} FROM edits WHERE post_id = p.post AND seq > p.seq AND {which}
        ORDER BY seq DESC LIMIT :limit)"""
_NEWER = text(f"""
    SELECT p.edit, n.* FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS p(edit text, post text, seq bigint, names jsonb)
    CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(p.names)) AS names) t
    CROSS JOIN LATERAL (
        {_NEWER_OF_ONE.format(columns=COLUMNS, which="status IN ('applied', 'queued') AND changes ?| t.names")}
        UNION ALL
        {_NEWER_OF_ONE.format(columns=COLUMNS, which="status = 'queued' AND NOT changes ?| t.names")}) n""")


def _read(tx: Connection, ids: Sequence[str]) -> list[EditHistory]:
    return [EditHistory(*row) for row in tx.execute(_SOME, {"ids": list(ids)})]


def prospects(tx: Connection, ids: Sequence[str]) -> list[Prospect]:
    """What a requeue of each of these edits would do, in their order."""
    edits = _read(tx, ids)
    newer: dict[str, list[EditHistory]] = {}
    wanted = [
        {"edit": edit.id, "post": edit.post_id, "seq": edit.seq, "names": edit_histories.touching(edit.changes)}
        for edit in edits
    ]
    for edit_id, *row in tx.execute(_NEWER, {"rows": to_json(wanted).decode(), "limit": NEWER_AT_MOST}):
        newer.setdefault(edit_id, []).append(EditHistory(*row))
    found, _ = posts_store.read_posts(tx, list(dict.fromkeys(edit.post_id for edit in edits)))
    return [
        edit_histories.prospect(
            edit,
            found[edit.post_id].facts if edit.post_id in found else None,
            sorted(newer.get(edit.id, ()), key=lambda one: -one.seq),
            edit.read_at,
        )
        for edit in edits
    ]


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done to some edits. `done`: their ids; `left`: those that have changed or are locked elsewhere. Below
    the commit, ring `edits.apply` for `posts` and `webhooks.deliver` for `webhooks`.
    """

    done: list[str]
    left: list[str]
    posts: list[str]
    webhooks: list[str]


# ix_edits_post
_SINCE = text("SELECT post_id, id FROM edits WHERE post_id = ANY(:posts) AND seq > :began_at")


def _undisturbed(tx: Connection, act: Act | None, posts: Collection[str]) -> set[str]:
    """Of these posts those of which earlier parts of the act requeued edits, and which got no other edit since."""
    begun = {post_id: act.done[post_id] for post_id in posts if post_id in act.done} if act else {}
    if act is None or not begun:
        return set()
    rows = tx.execute(_SINCE, {"posts": list(begun), "began_at": act.began_at})
    return begun.keys() - {post_id for post_id, edit_id in rows if edit_id not in begun[post_id]}


def requeue(tx: Connection, seen: Mapping[str, str | None], actor: Actor, act: Act | None = None) -> Mended:
    """`operator_actions.requeue` of some failed edits in one transaction, in their order.

    `seen`: the mark of the prospect that the operator agreed to, by the edit's id; None agrees to any. An edit whose
    prospect is another now, or whose post is locked elsewhere, is left as it is. `act`: the earlier parts of the same
    act. They have changed the prospects of the same posts, which is no reason to stop.
    """
    posts = {edit.post_id for edit in _read(tx, list(seen))}
    locked = posts_store.lock_posts(tx, posts, "skip")
    goes_on = _undisturbed(tx, act, locked)
    ready = [
        one.edit
        for one in prospects(tx, list(seen))
        if one.edit.post_id in locked
        and one.edit.status == EditStatus.FAILED
        and (seen[one.edit.id] in {None, one.mark} or one.edit.post_id in goes_on)
    ]
    operator_actions.requeue_locked(tx, ready, actor)
    return _mended(seen, ready, [])


def discard(tx: Connection, seen: Mapping[str, str], actor: Actor) -> Mended:
    """`operator_actions.discard` of some edits in one transaction. `seen`: the status that the operator saw, by the
    edit's id. An edit with another status now, or whose post is locked elsewhere, is left as it is.
    """
    posts = {edit.post_id for edit in _read(tx, list(seen))}
    locked = posts_store.lock_posts(tx, posts, "skip")
    ready = [edit for edit in _read(tx, list(seen)) if edit.post_id in locked and edit.status == seen[edit.id]]
    return _mended(seen, ready, operator_actions.discard_locked(tx, ready, locked, actor))


def _mended(seen: Mapping[str, object], ready: Sequence[EditHistory], webhooks: list[str]) -> Mended:
    done = [edit.id for edit in ready]
    left = sorted(seen.keys() - set(done))
    return Mended(done, left, list(dict.fromkeys(edit.post_id for edit in ready)), webhooks)
