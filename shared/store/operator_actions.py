"""What operators do to edits, and see first: one edit's history, requeue and discard; what goes by an id.

Operators see all workspaces. edit_lists.py has the lists of edits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared.domain import edit_histories, events, histories
from shared.domain.edit_histories import EditHistory, Prospect
from shared.domain.errors import Discarded
from shared.domain.lifecycle import EditStatus
from shared.domain.posts import Post
from shared.domain.queued_edits import EditResult
from shared.store import acts as acts_store
from shared.store import counted
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.acts import Act, Actor
from shared.store.edit_lists import COLUMNS, LOOKED_AT, LOOKS

NEWER_AT_MOST = 200

_ONE = text(f"SELECT {COLUMNS} FROM edits WHERE id = :id")


def history(tx: Connection, edit_id: str) -> EditHistory | None:
    """One edit of any workspace."""
    row = tx.execute(_ONE, {"id": edit_id}).one_or_none()
    return EditHistory(*row) if row else None


# ix_edits_post. Only what touches the same fields counts as overwritten, however much else came after it.
_NEWER = text(f"""
    (SELECT {COLUMNS} FROM edits WHERE post_id = :post AND seq > :seq AND status IN ('applied', 'queued')
        AND changes ?| CAST(:names AS text[]) ORDER BY seq DESC LIMIT :limit)
    UNION ALL
    (SELECT {COLUMNS} FROM edits WHERE post_id = :post AND seq > :seq AND status = 'queued'
        AND NOT changes ?| CAST(:names AS text[]) ORDER BY seq DESC LIMIT :limit)""")


def prospect(tx: Connection, edit_id: str) -> Prospect | None:
    """What a requeue of this edit would do, as things stand; None for an edit that is not there."""
    edit = history(tx, edit_id)
    if edit is None:
        return None
    given = {"post": edit.post_id, "seq": edit.seq, "limit": NEWER_AT_MOST}
    rows = tx.execute(_NEWER, given | {"names": edit_histories.touching(edit.changes)})
    newer = sorted((EditHistory(*row) for row in rows), key=lambda one: -one.seq)
    found, _ = posts_store.read_posts(tx, [edit.post_id])
    post = found.get(edit.post_id)
    return edit_histories.prospect(edit, post.facts if post else None, newer, edit.read_at)


@dataclass(frozen=True, slots=True)
class Done:
    """It is done. Below the commit, ring `edits.apply` for the post and `webhooks.deliver` for `webhooks`."""

    post_id: str
    webhooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotDone:
    """Nothing was changed, and why. `prospect`: what a requeue would do now, where that is another thing than what the
    operator agreed to.
    """

    why: str
    prospect: Prospect | None = None


# seq's DEFAULT is the identity's next value: behind everything that was accepted until now, taken under the post's
# lock like the reading of what it would overwrite.
_REQUEUE = text("""
    UPDATE edits SET seq = DEFAULT, status = 'queued', attempts = 0, started_at = NULL, lock_wait_ms = NULL,
        finalized_at = NULL, revision = NULL, before = NULL, after = NULL, result = NULL, error_code = NULL,
        error_message = NULL, error_details = NULL
    WHERE id = :id AND status = 'failed' AND post_id = :post""")


def requeue(tx: Connection, edit_id: str, actor: Actor, seen: str | None = None) -> Done | NotDone:
    """Give a failed edit a new place in its post's order and its attempts back.

    `seen` is the mark of the prospect that the operator agreed to; None agrees to any. The
    overwritten values are kept in `acts`, with the actor. Raises what a lock time-out raises (`db.lock_timed_out`).
    """
    edit = history(tx, edit_id)
    if edit is None:
        return NotDone(f"There is no edit {edit_id}")
    locked = posts_store.lock_posts(tx, [edit.post_id], "wait")
    now = prospect(tx, edit_id)
    if now is None or now.edit.status != EditStatus.FAILED:
        return NotDone(f"Only failed edits are requeued; {edit_id} is {now.edit.status if now else 'gone'}")
    if edit.post_id not in locked:
        return NotDone(f"There is no post {edit.post_id} any more; discard the edit")
    if seen is not None and seen != now.mark:
        return NotDone("The post or its edits have changed since you looked; look again", now)
    requeue_locked(tx, [now.edit], actor)
    return Done(edit.post_id)


def requeue_locked(tx: Connection, failed: Sequence[EditHistory], actor: Actor) -> None:
    """Requeue failed edits of locked posts, each behind the one before it."""
    for edit in failed:
        counted(tx.execute(_REQUEUE, {"id": edit.id, "post": edit.post_id}).rowcount, 1, "requeue")
    acts_store.record(tx, actor, [_act(acts_store.REQUEUE, edit) for edit in failed])


_DISCARD_FAILED = text("""
    UPDATE edits SET status = 'rejected', error_code = :code, error_message = :message, error_details = NULL,
        revision = :revision, finalized_at = clock_timestamp()
    WHERE id = :id AND status = 'failed'""")


def discard(tx: Connection, edit_id: str, actor: Actor) -> Done | NotDone:
    """Reject a failed or a queued edit with the code `discarded`; it never takes effect. Overwritten values and errors
    are as in `requeue`.
    """
    edit = history(tx, edit_id)
    if edit is None:
        return NotDone(f"There is no edit {edit_id}")
    locked = posts_store.lock_posts(tx, [edit.post_id], "wait")
    edit = history(tx, edit_id) or edit
    if edit.status not in {EditStatus.QUEUED, EditStatus.FAILED}:
        return NotDone(f"Only failed and queued edits are discarded; {edit_id} is {edit.status}")
    return Done(edit.post_id, tuple(discard_locked(tx, [edit], locked, actor)))


def discard_locked(
    tx: Connection, unwanted: Sequence[EditHistory], locked: Mapping[str, Post], actor: Actor
) -> list[str]:  # fmt: skip
    """Reject failed and queued edits of locked posts; the posts to ring `webhooks.deliver` for. A post that is not
    there any more has no lock and no event.
    """
    error, ends = Discarded(), list[EditResult]()
    for edit in unwanted:
        post = locked.get(edit.post_id)
        revision = post.facts.revision if post else None
        ends.append(
            EditResult(edit.id, EditStatus.REJECTED, revision, error_code=error.code, error_message=error.message)
        )
        if edit.status == EditStatus.FAILED:
            given = {"id": edit.id, "code": error.code, "message": error.message, "revision": revision}
            counted(tx.execute(_DISCARD_FAILED, given).rowcount, 1, "discard")
    queued = {edit.id for edit in unwanted if edit.status == EditStatus.QUEUED}
    edits_store.finalize_edits(tx, [end for end in ends if end.id in queued], tried=False)
    acts_store.record(tx, actor, [_act(acts_store.DISCARD, edit) for edit in unwanted])
    posts_of = {edit.id: locked[edit.post_id] for edit in unwanted if edit.post_id in locked}
    return webhooks_store.record(tx, events.of_edits([end for end in ends if end.id in posts_of], posts_of))


def _act(action: str, edit: EditHistory) -> Act:
    return Act(action, "edit", edit.id, edit.workspace_id, edit.status, histories.overwritten(edit))


@dataclass(frozen=True, slots=True)
class ListedPost:
    """A post as a list shows it. `now`: the database's clock."""

    id: str
    workspace_id: str
    account_id: str
    status: str
    scheduled_time: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class PostPage:
    """A page of posts. `next_place`: the page was cut before it was full, since LOOKS times LOOKED_AT posts had been
    looked at, and goes on behind this id; None at the list's end.
    """

    posts: list[ListedPost]
    next_place: str | None = None


# pk_posts. The inner LIMIT bounds what is looked at.
_POSTS = text("""
    SELECT id, workspace_id, account_id, status, scheduled_time, clock_timestamp() FROM (
        SELECT * FROM posts WHERE id < CAST(:after AS text) ORDER BY id DESC LIMIT :looked_at) looked_at
    WHERE deleted_at IS NULL AND (CAST(:status AS text) IS NULL OR status = :status)
        AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
        AND (CAST(:account AS text) IS NULL OR account_id = :account)
    ORDER BY id DESC LIMIT :limit""")
_POSTS_END = text("SELECT id FROM posts WHERE id < CAST(:after AS text) ORDER BY id DESC OFFSET :looked_at - 1 LIMIT 1")
# Behind every id, in whatever order the database sorts text: z is the last letter that an id holds.
_POSTS_BEGIN = "z" * 300


def posts(
    tx: Connection, *, status: str | None, workspace_id: str | None, account_id: str | None, limit: int,
    after: str | None = None,
) -> PostPage:  # fmt: skip
    """Posts that all the given filters match, by id, the last first (the primary key). Ids that Redraft made sort by
    time. `after`: the `next_place` of the page before.
    """
    given = {"status": status, "workspace": workspace_id, "account": account_id, "looked_at": LOOKED_AT}
    place, found = after or _POSTS_BEGIN, list[ListedPost]()
    for _ in range(LOOKS):
        # The end first: a post that comes in afterwards stands above it.
        end = tx.execute(_POSTS_END, given | {"after": place}).scalar_one_or_none()
        rows = tx.execute(_POSTS, given | {"after": place, "limit": limit - len(found)})
        found += [ListedPost(*row) for row in rows]
        if end is None or len(found) >= limit:
            return PostPage(found)
        place = str(end)
    return PostPage(found, place)


@dataclass(frozen=True, slots=True)
class Found:
    """What goes by an id that an operator copied: its kind in words, and the page that shows it (`edits`, `posts`,
    `jobs`, `webhooks`, or `requests` for all edits of a request), opened by the id `opens`.
    """

    kind: str
    id: str
    page: str
    opens: str


# A request id may stand beside many edits, for clients may send the same one again (ix_edits_request).
_FIND = text("""
    SELECT 'post', id, 'posts', id FROM posts WHERE id = ANY(:ids)
    UNION ALL SELECT 'edit', id, 'edits', id FROM edits WHERE id = ANY(:ids)
    UNION ALL SELECT 'bulk job', id, 'jobs', id FROM reschedules WHERE id = ANY(:ids)
    UNION ALL SELECT 'webhook event', id, 'webhooks', id FROM webhook_events WHERE id = ANY(:ids)
    UNION ALL (
        SELECT CASE WHEN count(*) = 1 THEN 'edit of request' ELSE 'edits of request' END, r.id,
            CASE WHEN count(*) = 1 THEN 'edits' ELSE 'requests' END,
            CASE WHEN count(*) = 1 THEN min(e.id) ELSE r.id END
        FROM unnest(CAST(:requests AS text[])) r(id) CROSS JOIN LATERAL (
            SELECT id FROM edits WHERE request_id = r.id AND reschedule_id IS NULL ORDER BY id DESC LIMIT 2) e
        GROUP BY r.id)
    UNION ALL (
        SELECT 'bulk job of request', request_id, 'jobs', id FROM reschedules WHERE request_id = ANY(:requests)
        LIMIT 20)
    LIMIT 100""")


def find(tx: Connection, ids: list[str], requests: list[str]) -> list[Found]:
    """All that goes by these ids, and by these ids of requests, each by its table's own index."""
    return [Found(*row) for row in tx.execute(_FIND, {"ids": ids, "requests": requests})]
