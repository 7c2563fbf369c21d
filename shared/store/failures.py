"""Failed posts: finding them, and putting them back to due for an operator or a client."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain import failure_classes
from shared.domain.failure_classes import FailureClass
from shared.domain.ids import new_id
from shared.domain.lifecycle import ClaimKind, PostFacts, Status, needs_render
from shared.domain.posts import Post
from shared.store import acts as acts_store
from shared.store import claims as claims_store
from shared.store import counted
from shared.store import posts as posts_store
from shared.store.acts import Act, Actor

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
        """The last answer, else the reason."""
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
        SELECT bool_or(NOT a.not_sent AND coalesce(a.outcome, '') <> ALL(:harmless)) FROM publish_attempts a
        WHERE a.post_id = p.id AND a.idempotency_key = l.idempotency_key), false)
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


def failed_posts(
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
        "harmless": claims_store.HARMLESS,
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
        """The last answer, else the reason."""
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
    """The most frequent groups first. `total`: all posts that were looked at; `distinct`: how many groups they make;
    `classes`: the same posts by class alone; `truncated`: there are more posts than were looked at. `now`: the
    database's clock.
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
    ORDER BY count(*) DESC, max(failed_at) DESC NULLS LAST, failure, failure_reason, answer LIMIT :limit""")
_CLASSES = text(f"""
    SELECT * FROM (
        SELECT DISTINCT ON (failure) failure, count(*) OVER (PARTITION BY failure) AS posts, failed_at,
            coalesce(answer, failure_reason)
        FROM {_NEWEST} newest ORDER BY failure, failed_at DESC NULLS LAST) classes
    ORDER BY posts DESC, failure""")


_ALL: dict[str, object] = {"reason": None, "since": None, "until": None, "workspace": None, "account": None}
_NEWEST_OF_ALL = _ALL | {"looked_at": LOOKED_AT}


def classes(tx: Connection, since: datetime | None = None) -> list[FailedClass]:
    """The newest LOOKED_AT failed posts by class (ix_posts_failed); `since`: those that failed since then."""
    return _classes(tx, _NEWEST_OF_ALL | {"since": since})


def _classes(tx: Connection, given: Mapping[str, object]) -> list[FailedClass]:
    found = tx.execute(_CLASSES, given)
    return [FailedClass(FailureClass(failure), count, newest, words) for failure, count, newest, words in found]


def groups(
    tx: Connection, since: datetime | None = None, limit: int = 100, *, reason: str | None = None,
    workspace_id: str | None = None, account_id: str | None = None,
) -> FailedGroups:  # fmt: skip
    """The newest LOOKED_AT failed posts that all the given filters match, by group (ix_posts_failed). The filters are
    those of `failed_posts`.
    """
    given = _NEWEST_OF_ALL | {"reason": reason, "since": since, "workspace": workspace_id, "account": account_id}
    found = tx.execute(_GROUPS, given | {"limit": limit}).all()
    total, distinct = (int(found[0][6]), int(found[0][7])) if found else (0, 0)
    grouped = [FailedGroup(row[0], FailureClass(row[1]), *row[2:6]) for row in found]
    return FailedGroups(grouped, _classes(tx, given), total, distinct, total >= LOOKED_AT, posts_store.clock(tx))


def of_group(tx: Connection, group: str, until: datetime | None, limit: int) -> list[FailedPost]:
    """The newest failed posts of a FailedGroup's id or of a class, of the newest LOOKED_AT. `until`: those that
    failed by then.
    """
    given = _NEWEST_OF_ALL | {"group": group, "until": until, "limit": limit, "harmless": claims_store.HARMLESS}
    return [_failed_post(row) for row in tx.execute(_GROUP, given)]


def mark(posts: Iterable[FailedPost]) -> str:
    """Names these posts as they stand: a retry that was agreed to is a retry of these, and of no others."""
    seen = [(post.id, post.revision) for post in posts]
    return sha256(repr(seen).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Retried:
    """A post that is back. `back`: `due`, open to edits; `closed`, since it may have gone out, to be asked about
    again under its old key with its old body; `render`, for it failed in its render. `revision` is its message's fence.
    """

    post_id: str
    back: Literal["due", "closed", "render"]
    revision: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """How a failed post stands after a retry. `claim`: an expired claim, which closes it to edits and deletion."""

    back: Literal["due", "closed", "render"]
    status: Status
    claim: ClaimKind | None = None


def put_back(post: PostFacts, *, maybe_sent: bool) -> PutBack:
    """What an operator's retry makes of a failed post that may have gone out, or certainly did not. Pure."""
    if maybe_sent:
        return PutBack("closed", Status.GENERATED, ClaimKind.PUBLISH)
    if post.rendered_url is None and needs_render(post.content_type, render_as_video=post.render_as_video):
        return PutBack("render", Status.PENDING_RENDER)
    return PutBack("due", Status.GENERATED)


def to_ring(done: Iterable[Retried]) -> tuple[list[tuple[str, int, datetime | None]], list[tuple[str, int]]]:
    """What to ring for below the commit: publishes that are due, and renders. Dispatch sends what is due later."""
    due = [one for one in done if one.at is None]
    publishes: list[tuple[str, int, datetime | None]] = [
        (one.post_id, one.revision, None) for one in due if one.back != "render"
    ]
    return publishes, [(one.post_id, one.revision) for one in done if one.back == "render"]


def retry_unchanged(
    tx: Connection, seen: Mapping[str, int], actor: Actor, *, not_sent: bool = False
) -> list[Retried]:  # fmt: skip
    """`retry` of these posts, each only at the revision that the operator saw and confirmed. Posts that are
    locked elsewhere, and those with another revision now, are left out: a try may have been made since.
    """
    locked = posts_store.lock_posts(tx, seen, "skip")
    same = [post for post_id, post in locked.items() if post.facts.revision == seen[post_id]]
    return retry(tx, same, actor, not_sent=not_sent)


_RETRY = text("""
    UPDATE posts p SET status = r.status, failure_reason = NULL, failed_at = NULL, revision = p.revision + 1,
        failure_class = NULL, failure_message = NULL,
        render_outcome = NULL, render_message = NULL, render_answered_at = NULL,
        retry_at = NULL, render_tries = 0, render_waits_since = NULL,
        claim_kind = r.claim_kind, claim_token = r.claim_token,
        claim_expires_at = CASE WHEN r.claim_kind IS NOT NULL THEN clock_timestamp() END,
        enqueued_revision = CASE WHEN p.scheduled_time > clock_timestamp() OR r.claim_kind IS NOT NULL THEN NULL
            WHEN r.status = 'generated' THEN p.schedule_revision ELSE p.content_revision END,
        enqueued_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        id text, status text, claim_kind text, claim_token text, from_revision bigint)
    WHERE p.id = r.id AND p.status = 'failed' AND p.revision = r.from_revision AND p.deleted_at IS NULL
    RETURNING p.id, p.scheduled_time > clock_timestamp()""")


# What the retry overwrites, as people see it.
_BEFORE = text("""
    SELECT id, jsonb_build_object('status', status, 'failureReason', failure_reason, 'failedAt', failed_at,
        'failureClass', failure_class, 'failureMessage', failure_message,
        'revision', revision, 'retryAt', retry_at, 'renderTries', render_tries)
    FROM posts WHERE id = ANY(:ids)""")


def retry(tx: Connection, posts: Iterable[Post], actor: Actor, *, not_sent: bool = False) -> list[Retried]:
    """Put locked posts that failed back to work; those that did not fail are left out. What stood there before is kept
    in `acts`, with who did it.

    What was tried before no longer counts against them. Key and body stay: a post that may have gone out comes back
    closed to edits, its publish claim expired, so that it is taken up with both and can never go out twice. `not_sent`
    is the operator's word that it did not go out: the post comes back open.
    """
    failed = [post for post in posts if post.facts.status is Status.FAILED and not post.facts.deleted]
    past = claims_store.histories(tx, [post.facts.id for post in failed])
    before = {row[0]: row[1] for row in tx.execute(_BEFORE, {"ids": [post.facts.id for post in failed]})}
    rows: list[dict[str, object]] = []
    done: list[Retried] = []
    acts: list[Act] = []
    for post in failed:
        facts, history = post.facts, past.get(post.facts.id)
        maybe_sent = history is not None and history.past.maybe_sent
        put = put_back(facts, maybe_sent=maybe_sent and not not_sent)
        rows.append(
            {
                "id": facts.id,
                "status": put.status,
                "claim_kind": put.claim,
                "claim_token": None if put.claim is None else new_id("clm"),
                "from_revision": facts.revision,
            }
        )
        revision = facts.content_revision if put.status is Status.PENDING_RENDER else facts.schedule_revision
        action = acts_store.RETRY_NOT_SENT if maybe_sent and not_sent else acts_store.RETRY
        overwritten = before[facts.id] | {"idempotencyKey": history.idempotency_key if history else None}
        acts.append(Act(action, "post", facts.id, post.workspace_id, facts.status, overwritten))
        done.append(Retried(facts.id, put.back, revision, facts.scheduled_time))
    if not rows:
        return []
    claims_store.forgive(tx, past, not_sent=not_sent)
    waits = {row[0]: row[1] for row in tx.execute(_RETRY, {"rows": to_json(rows).decode()})}
    counted(len(waits), len(rows), "retry")
    acts_store.record(tx, actor, acts)
    return [one if waits[one.post_id] else Retried(one.post_id, one.back, one.revision, None) for one in done]
