"""Failed posts as operators read them: lists, groups and classes, with the last words of publisher and renderer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text

from shared.domain import failure_classes
from shared.domain.failure_classes import FailureClass
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store

LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class FailedPost:
    """A post that failed, and why. `failed_at` is not known of posts that were put in as failed. `answer`: the last
    words of publisher or renderer, where there were any. `maybe_sent`: it may have gone out.
    """

    id: str
    workspace_id: str
    account_id: str
    failure: FailureClass
    reason: str
    answer: str | None
    scheduled_time: datetime
    failed_at: datetime | None
    revision: int
    maybe_sent: bool

    @property
    def words(self) -> str:
        """The last words, else the reason."""
        return self.answer or self.reason


_TEXTS = " ".join(f"WHEN '{reason}' THEN '{kind}'" for reason, kind in failure_classes.BY_REASON.items())
CLASS = f"coalesce(p.failure_class, CASE p.failure_reason {_TEXTS} ELSE '{FailureClass.REFUSED}' END)"
"""The class of a failed post `p`, in SQL; the same as `failure_classes.of_row`."""

# A post that failed before its class was recorded has its last words beside its latest try (ix_publish_attempts_post).
_ANSWER = """coalesce(p.failure_message, CASE WHEN p.failure_class IS NULL THEN (
        SELECT a.message FROM publish_attempts a WHERE a.post_id = p.id ORDER BY a.id DESC LIMIT 1) END)"""
# What lists show, in one text: any part of it can be typed.
_SHOWN = f"concat_ws(' ', {CLASS} || ':', {_ANSWER}, p.failure_reason)"
_COLUMNS = f"""p.id, p.workspace_id, p.account_id, {CLASS} AS failure, p.failure_reason, {_ANSWER} AS answer,
        p.scheduled_time, p.failed_at, p.revision"""
# Both halves by ix_posts_failed, in its order: those whose time of failure is known, the latest first; then the others.
# The second half is not sorted by id, for PostgreSQL would then walk the primary key, and so all posts there are.
_LATEST = f"""(SELECT * FROM (
        (SELECT {_COLUMNS} FROM posts p WHERE {{meant}} AND p.failed_at IS NOT NULL
         ORDER BY p.failed_at DESC, p.id LIMIT :{{most}})
        UNION ALL
        (SELECT {_COLUMNS} FROM posts p WHERE {{meant}} AND p.failed_at IS NULL
         ORDER BY p.failed_at DESC LIMIT :{{most}})) halves
    ORDER BY failed_at DESC NULLS LAST, id LIMIT :{{most}})"""
_FAILED_POST = "p.status = 'failed' AND p.deleted_at IS NULL"
_FILTER = f"""{_FAILED_POST}
        AND (CAST(:reason AS text) IS NULL OR strpos(lower({_SHOWN}), lower(:reason)) > 0)
        AND (CAST(:since AS timestamptz) IS NULL OR p.failed_at >= :since)
        AND (CAST(:workspace AS text) IS NULL OR p.workspace_id = :workspace)
        AND (CAST(:account AS text) IS NULL OR p.account_id = :account)"""
_MEANT = f"""{_FILTER}
        AND (CAST(:ids AS text[]) IS NULL OR p.id = ANY(:ids))"""
# Of all failed posts only the newest are looked at for a page: it must stay quick, however many there are.
_NEWEST = _LATEST.format(
    meant=f"""{_FILTER}
        AND (CAST(:until AS timestamptz) IS NULL OR p.failed_at IS NULL OR p.failed_at <= :until)""",
    most="looked_at",
)
# ix_publish_attempts_post, for each post that is shown.
_WITH_DOUBT = """
    SELECT p.*, coalesce((
        SELECT bool_or(a.outcome = 'done' OR a.idempotency_key = l.idempotency_key AND NOT a.not_sent
                AND coalesce(a.outcome, '') <> ALL(:harmless))
        FROM publish_attempts a WHERE a.post_id = p.id), false)
    FROM {source} p
    LEFT JOIN LATERAL (
        SELECT idempotency_key FROM publish_attempts WHERE post_id = p.id ORDER BY id DESC LIMIT 1) l ON true
    ORDER BY p.failed_at DESC NULLS LAST, p.id"""
_GROUP_ID = "md5(concat_ws(chr(31), failure, failure_reason, answer))"
_FAILED = text(_WITH_DOUBT.format(source=_LATEST.format(meant=_MEANT, most="limit")))
_GROUP = text(
    _WITH_DOUBT.format(
        source=f"(SELECT * FROM {_NEWEST} newest WHERE failure = :group OR {_GROUP_ID} = :group LIMIT :limit)"
    )
)


def _failed_post(row: Sequence[Any]) -> FailedPost:
    post_id, workspace, account, failure, *rest = row
    return FailedPost(post_id, workspace, account, FailureClass(failure), *rest)


def find(
    tx: Connection, *, ids: Sequence[str] | None = None, reason: str | None = None, since: datetime | None = None,
    workspace_id: str | None = None, account_id: str | None = None, limit: int,
) -> list[FailedPost]:  # fmt: skip
    """Failed posts, the latest first: these, or those that all the given filters match. `reason`: a part of the class,
    of the last words or of the reason, as lists show them, in small or capital letters.
    """
    given = {
        "ids": list(ids) if ids is not None else None,
        "reason": reason,
        "since": since,
        "workspace": workspace_id,
        "account": account_id,
        "limit": limit,
        "harmless": attempts_store.HARMLESS,
    }
    return [_failed_post(row) for row in tx.execute(_FAILED, given)]


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """Failed posts of one class with the same reason and last words. `id` names the group in an address; `newest`:
    when the latest of them failed.
    """

    id: str
    failure: FailureClass
    reason: str
    answer: str | None
    count: int
    newest: datetime | None

    @property
    def words(self) -> str:
        """The last words, else the reason."""
        return self.answer or self.reason


def label(failed: FailedPost | FailedGroup) -> str:
    """The class and the last words, as lists show them: `--reason` takes any part of it."""
    return f"{failed.failure}: {failed.words}"


@dataclass(frozen=True, slots=True)
class FailedClass:
    """Failed posts of one class. `words`: those of the latest of them."""

    failure: FailureClass
    count: int
    newest: datetime | None
    words: str


@dataclass(frozen=True, slots=True)
class FailedGroups:
    """Groups of an unknown outcome first, since each of their posts may be out; then the most frequent ones. `total`:
    all posts that were looked at; `distinct`: how many groups they make; `classes`: the same posts by class alone;
    `truncated`: there are more posts than were looked at. `now`: the database's clock.
    """

    groups: list[FailedGroup]
    classes: list[FailedClass]
    total: int
    distinct: int
    truncated: bool
    now: datetime


_GROUPS = text(f"""
    SELECT {_GROUP_ID}, failure, failure_reason, answer, count(*), max(failed_at), sum(count(*)) OVER (),
        count(*) OVER ()
    FROM {_NEWEST} newest
    GROUP BY failure, failure_reason, answer
    ORDER BY failure <> '{FailureClass.UNKNOWN}', count(*) DESC, max(failed_at) DESC NULLS LAST, failure,
        failure_reason, answer
    LIMIT :limit""")
_CLASSES = text(f"""
    SELECT * FROM (
        SELECT DISTINCT ON (failure) failure, count(*) OVER (PARTITION BY failure) AS posts, failed_at,
            coalesce(answer, failure_reason)
        FROM {_NEWEST} newest ORDER BY failure, failed_at DESC NULLS LAST) classes
    ORDER BY failure <> '{FailureClass.UNKNOWN}', posts DESC, failure""")


# Asked only where so many were looked at.
_MORE = text(f"SELECT EXISTS (SELECT FROM posts p WHERE {_FILTER} OFFSET :looked_at)")

_ALL: dict[str, object] = {"reason": None, "since": None, "until": None, "workspace": None, "account": None}
_NEWEST_OF_ALL = _ALL | {"looked_at": LOOKED_AT}


def classes(tx: Connection, since: datetime | None = None) -> list[FailedClass]:
    """The newest LOOKED_AT failed posts by class (ix_posts_failed); `since`: those that failed since then. A class of
    LOOKED_AT may have more.
    """
    return _classes(tx, _NEWEST_OF_ALL | {"since": since})


def _classes(tx: Connection, given: Mapping[str, object]) -> list[FailedClass]:
    found = tx.execute(_CLASSES, given)
    return [FailedClass(FailureClass(failure), count, newest, words) for failure, count, newest, words in found]


def groups(
    tx: Connection, since: datetime | None = None, limit: int = 100, *, reason: str | None = None,
    workspace_id: str | None = None, account_id: str | None = None,
) -> FailedGroups:  # fmt: skip
    """The newest LOOKED_AT failed posts that all the given filters match, by group (ix_posts_failed). The filters are
    those of `find`.
    """
    given = _NEWEST_OF_ALL | {"reason": reason, "since": since, "workspace": workspace_id, "account": account_id}
    found = tx.execute(_GROUPS, given | {"limit": limit}).all()
    total, distinct = (int(found[0][6]), int(found[0][7])) if found else (0, 0)
    grouped = [FailedGroup(row[0], FailureClass(row[1]), *row[2:6]) for row in found]
    truncated = total >= LOOKED_AT and tx.execute(_MORE, given).scalar_one()
    return FailedGroups(grouped, _classes(tx, given), total, distinct, truncated, posts_store.clock(tx))


def of_group(tx: Connection, group: str, until: datetime | None, limit: int) -> list[FailedPost]:
    """The newest failed posts of a FailedGroup's id or of a class, of the newest LOOKED_AT. `until`: those that
    failed by then.
    """
    given = _NEWEST_OF_ALL | {"group": group, "until": until, "limit": limit, "harmless": attempts_store.HARMLESS}
    return [_failed_post(row) for row in tx.execute(_GROUP, given)]


def mark(posts: Iterable[FailedPost]) -> str:
    """Names these posts as they stand: a retry that was agreed to is a retry of these, and of no others."""
    seen = [(post.id, post.revision) for post in posts]
    return sha256(repr(seen).encode()).hexdigest()[:16]
