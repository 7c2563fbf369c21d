"""What operators read of edits and do to them: lists, one edit's history, requeue and discard.

Operators see all workspaces. Every list is bounded, and read by an index that exists.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared.domain import edit_histories, events, histories
from shared.domain.edit_histories import EditHistory, Prospect
from shared.domain.errors import Discarded
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from shared.store import acts as acts_store
from shared.store import counted
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.acts import Act, Actor

LOOKED_AT = 20_000
LOOKS = 5
NEWER_AT_MOST = 200

_COLUMNS = f"""id, seq, post_id, workspace_id, status, changes, if_match, requested_by, request_id, reschedule_id,
    created_at, attempts, started_at, lock_wait_ms, finalized_at, revision, before, {edits_store.AFTER},
    error_code, error_message, error_details, clock_timestamp()"""

_ONE = text(f"SELECT {_COLUMNS} FROM edits WHERE id = :id")


def history(tx: Connection, edit_id: str) -> EditHistory | None:
    """One edit of any workspace."""
    row = tx.execute(_ONE, {"id": edit_id}).one_or_none()
    return EditHistory(*row) if row else None


# Each list follows the index named beside it, newest first. The inner LIMIT bounds what is looked at, so that a filter
# that matches little cannot make the list slow.
_MEANT = """(CAST(:status AS text) IS NULL OR status = :status)
    AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)"""
_LISTS = {
    # pk_edits: ids sort by the time at which they were made. The moves of bulk jobs stand on the jobs' own pages.
    "all": text(f"""
        SELECT {_COLUMNS} FROM (SELECT * FROM edits WHERE id < :after ORDER BY id DESC LIMIT :looked_at) looked_at
        WHERE reschedule_id IS NULL AND {_MEANT} ORDER BY id DESC LIMIT :limit"""),
    # ix_edits_failed
    "failed": text(f"""
        SELECT {_COLUMNS} FROM (
            SELECT * FROM edits WHERE status = 'failed' AND seq < :after ORDER BY seq DESC LIMIT :looked_at
        ) looked_at
        WHERE {_MEANT} ORDER BY seq DESC LIMIT :limit"""),
    # ix_edits_queue; the longest waiting first, of at most so many.
    "queued": text(f"""
        SELECT {_COLUMNS} FROM (SELECT * FROM edits WHERE status = 'queued' LIMIT :looked_at) looked_at
        WHERE seq > :after AND {_MEANT} ORDER BY seq LIMIT :limit"""),
    # ix_edits_post
    "post": text(f"""
        SELECT {_COLUMNS} FROM (
            SELECT * FROM edits WHERE post_id = :post AND seq < :after ORDER BY seq DESC LIMIT :looked_at
        ) looked_at
        WHERE {_MEANT} ORDER BY seq DESC LIMIT :limit"""),
}
_END = text("SELECT id FROM edits WHERE id < :after ORDER BY id DESC OFFSET :looked_at - 1 LIMIT 1")
# Behind every id, in whatever order the database sorts text: z is the last letter that an id holds.
_IDS_END = "edit_" + "z" * 27
_SEQS_END = 2**63 - 1


def edits(
    tx: Connection,
    *,
    status: str | None = None,
    post_id: str | None = None,
    workspace_id: str | None = None,
    after: str | int | None = None,
    limit: int = 50,
) -> list[EditHistory]:
    """Edits newest first; queued ones, unless of one post, the longest waiting first. `after`: the `place` of the last
    one of the page before. Of all edits at most LOOKS times LOOKED_AT are looked at, and bulk moves are left out.
    """
    kind = _kind(status, post_id)
    first: dict[str, str | int] = {"all": _IDS_END, "queued": -1}
    given: dict[str, object] = {"status": status, "workspace": workspace_id, "post": post_id, "looked_at": LOOKED_AT}
    given["after"] = first.get(kind, _SEQS_END)
    if isinstance(after, str if kind == "all" else int):
        given["after"] = after
    found: list[EditHistory] = []
    for _ in range(LOOKS if kind == "all" else 1):
        found += [EditHistory(*row) for row in tx.execute(_LISTS[kind], given | {"limit": limit - len(found)})]
        end = tx.execute(_END, given).scalar_one_or_none() if kind == "all" and len(found) < limit else None
        if end is None:
            break
        given["after"] = end
    return found


def place(edit: EditHistory, *, status: str | None = None, post_id: str | None = None) -> str | int:
    """Where an edit stood in such a list as it was read: a requeue gives it another place, and the next page must go on
    from this one.
    """
    return edit.id if _kind(status, post_id) == "all" else edit.seq


def _kind(status: str | None, post_id: str | None) -> str:
    """Which of `_LISTS` it is."""
    return "post" if post_id is not None else status if status in ("failed", "queued") else "all"


_NEWER = text(f"""
    SELECT {_COLUMNS} FROM edits WHERE post_id = :post AND seq > :seq AND status IN ('applied', 'queued')
    ORDER BY seq DESC LIMIT :limit""")


def prospect(tx: Connection, edit_id: str) -> Prospect | None:
    """What a requeue of this edit would do, as things stand; None for an edit that is not there."""
    edit = history(tx, edit_id)
    if edit is None:
        return None
    given = {"post": edit.post_id, "seq": edit.seq, "limit": NEWER_AT_MOST}
    newer = [EditHistory(*row) for row in tx.execute(_NEWER, given)]
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
    counted(tx.execute(_REQUEUE, {"id": edit_id, "post": edit.post_id}).rowcount, 1, "requeue")
    acts_store.record(tx, actor, [_act(acts_store.REQUEUE, now.edit)])
    return Done(edit.post_id)


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
    post, error = locked.get(edit.post_id), Discarded()
    revision = post.facts.revision if post else None
    end = EditResult(edit_id, EditStatus.REJECTED, revision, error_code=error.code, error_message=error.message)
    if edit.status == EditStatus.QUEUED:
        edits_store.finalize_edits(tx, [end], tried=False)
    elif edit.status == EditStatus.FAILED:
        given = {"id": edit_id, "code": error.code, "message": error.message, "revision": revision}
        counted(tx.execute(_DISCARD_FAILED, given).rowcount, 1, "discard")
    else:
        return NotDone(f"Only failed and queued edits are discarded; {edit_id} is {edit.status}")
    acts_store.record(tx, actor, [_act(acts_store.DISCARD, edit)])
    webhooks = webhooks_store.record(tx, events.of_edits([end], {edit_id: post})) if post else []
    return Done(edit.post_id, tuple(webhooks))


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


_POSTS = text("""
    SELECT id, workspace_id, account_id, status, scheduled_time, clock_timestamp() FROM posts
    WHERE deleted_at IS NULL AND (CAST(:status AS text) IS NULL OR status = :status)
        AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
        AND (CAST(:account AS text) IS NULL OR account_id = :account)
    ORDER BY id DESC LIMIT :limit""")


def posts(
    tx: Connection, *, status: str | None, workspace_id: str | None, account_id: str | None, limit: int
) -> list[ListedPost]:  # fmt: skip
    """Posts that all the given filters match, by id, the last first (the primary key). Ids that Redraft made sort by
    time.
    """
    given = {"status": status, "workspace": workspace_id, "account": account_id, "limit": limit}
    return [ListedPost(*row) for row in tx.execute(_POSTS, given)]


@dataclass(frozen=True, slots=True)
class Found:
    """What goes by an id that an operator copied: its kind in words, and the page that shows it (`edits`, `posts`,
    `jobs`), opened by the id `opens`.
    """

    kind: str
    id: str
    page: str
    opens: str


_FIND = text("""
    SELECT 'post', id, 'posts', id FROM posts WHERE id = ANY(:ids)
    UNION ALL SELECT 'edit', id, 'edits', id FROM edits WHERE id = ANY(:ids)
    UNION ALL SELECT 'bulk job', id, 'jobs', id FROM reschedules WHERE id = ANY(:ids)
    UNION ALL SELECT 'webhook event of post', id, 'posts', post_id FROM webhook_events WHERE id = ANY(:ids)
    LIMIT 100""")


def find(tx: Connection, ids: list[str]) -> list[Found]:
    """All that goes by these ids, each by its table's own index."""
    return [Found(*row) for row in tx.execute(_FIND, {"ids": ids})]
