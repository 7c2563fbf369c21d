"""Posts: the only row lock in the project, and the guarded writes that go with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.edits import PLAIN
from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.reschedules import ScheduleFacts
from shared.store import expecting, raw_statements
from shared.store.raw_statements import array
from shared.store.trip import Statement

_SQL_OF = {"claim": "claim_kind", "deleted": "deleted_at IS NOT NULL AS deleted"}
_OF_FACTS = [_SQL_OF.get(one.name, one.name) for one in fields(PostFacts)]
_OF_POST = [one.name for one in fields(Post) if one.name != "facts"]
COLUMNS = ", ".join(_OF_FACTS + _OF_POST)
"""The columns of a post, in the order of PostFacts and then of Post. Each attribute is named like its column."""
_FACTS, _ALL = len(_OF_FACTS), len(_OF_FACTS + _OF_POST)
CONTENT = _OF_FACTS.index("content_url")
"""The index of content_url among COLUMNS."""

_STATUS = {status.value: status for status in Status}
_CLAIM = {None: None} | {kind.value: kind for kind in ClaimKind}


def post_of(row: Sequence[Any]) -> Post:
    """A row of COLUMNS as a Post."""
    identity, platform, status, claim, *rest = row[:_FACTS]
    return Post(PostFacts(identity, platform, _STATUS[status], _CLAIM[claim], *rest), *row[_FACTS:_ALL])


_SCHEDULE_FACTS = (
    "id, status, claim_kind, timezone, scheduled_time, schedule_revision, revision, deleted_at IS NOT NULL"
)
# In a subselect, so that a plan for one id costs the same as one for ten: else PostgreSQL plans each call anew.
_IDS = "ANY(ARRAY(SELECT unnest(CAST($1 AS text[]))))"
_LOCK = f"SELECT {{}} FROM posts WHERE id = {_IDS} ORDER BY id FOR NO KEY UPDATE {{}}"
# A content that does not fit the row's page is read separately, for some posts at a time (shared/store/batches.py).
_SMALL = "pg_column_compression(content_url) IS NULL AND pg_column_size(content_url) < 4096"
_LIGHT = COLUMNS.replace(" content_url,", f" CASE WHEN {_SMALL} THEN content_url END,")
_LOCK_LIGHT = _LOCK.format(_LIGHT, "SKIP LOCKED")
_LOCKS = {"wait": _LOCK.format(COLUMNS, ""), "skip": _LOCK.format(COLUMNS, "SKIP LOCKED")}
_LOCK_SCHEDULES = {"wait": _LOCK.format(_SCHEDULE_FACTS, ""), "skip": _LOCK.format(_SCHEDULE_FACTS, "SKIP LOCKED")}


def lock(ids: Iterable[str], when_locked: Literal["wait", "skip"]) -> Statement:
    """The statement of `lock_posts`, to travel with what comes after it."""
    return _LOCKS[when_locked], array(sorted(set(ids)))


def lock_light(ids: Iterable[str]) -> Statement:
    """The same, skipping what is locked elsewhere: a large `content_url` is left out, for `contents` to read."""
    return _LOCK_LIGHT, array(sorted(set(ids)))


_CONTENTS = f"SELECT id, content_url FROM posts WHERE id = {_IDS}"


def contents(tx: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """The content of locked posts."""
    return dict(raw_statements.rows(tx, _CONTENTS, array(ids)))


def lock_posts(tx: Connection, ids: Iterable[str], when_locked: Literal["wait", "skip"]) -> dict[str, Post]:
    """Lock posts in id order and return them as they are under the lock.

    The only row lock in the project. `skip` leaves out posts that another session has locked. `wait` waits for
    lock_timeout and then raises (`db.lock_timed_out`). Unknown ids are left out. Read what depends on the lock in the
    NEXT statement: this statement's snapshot is from before the wait.
    """
    return by_id(raw_statements.rows(tx, *lock(ids, when_locked)))


def by_id(rows: Iterable[Sequence[Any]]) -> dict[str, Post]:
    """Rows of COLUMNS as posts."""
    return {post.facts.id: post for post in map(post_of, rows)}


def lock_schedules(tx: Connection, ids: Sequence[str], when_locked: Literal["wait", "skip"]) -> list[ScheduleFacts]:
    """The same lock, returning in id order only what moving a post in time reads: for bulk jobs."""
    return [ScheduleFacts._make(row) for row in raw_statements.rows(tx, _LOCK_SCHEDULES[when_locked], array(ids))]


_READ_SCHEDULES = text(f"SELECT {_SCHEDULE_FACTS} FROM posts WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id")


def read_schedules(tx: Connection, ids: Sequence[str]) -> list[ScheduleFacts]:
    """The same, unlocked: what a dry run decides about."""
    return [ScheduleFacts._make(row) for row in tx.execute(_READ_SCHEDULES, {"ids": array(ids)}).all()]


def waiting_at_most(seconds: float) -> Statement:
    """The statement of `wait_at_most`, to travel with others."""
    # PostgreSQL takes 0 for 'for ever'.
    return "SELECT set_config('lock_timeout', $1, true)", f"{max(1, int(seconds * 1000))}ms"


def wait_at_most(tx: Connection, seconds: float) -> None:
    """Bound the waiting for locks in this transaction."""
    raw_statements.rows(tx, *waiting_at_most(seconds))


_READ = f"SELECT {COLUMNS}, now() FROM posts WHERE id = {_IDS}"


def read_posts(tx: Connection, ids: Iterable[str]) -> tuple[dict[str, Post], datetime | None]:
    """Posts as they are, unlocked, deleted ones too, and the database's clock (None where nothing was found)."""
    rows = raw_statements.rows(tx, _READ, array(sorted(set(ids))))
    return {row[0]: post_of(row) for row in rows}, rows[0][-1] if rows else None


_CLOCK = text("SELECT clock_timestamp()")


def clock(tx: Connection) -> datetime:
    """The database's clock at this moment. Every decision about time uses it (docs/lifecycle.md)."""
    now: datetime = tx.execute(_CLOCK).scalar_one()
    return now


@dataclass(frozen=True, slots=True)
class Write:
    """One post's change under its lock. `enqueue`: the task that is sent after the commit, and marked in the row."""

    before: PostFacts
    after: PostFacts
    enqueue: Literal["publish", "render"] | None = None

    @property
    def marked_revision(self) -> int | None:
        if self.enqueue is None:
            return None
        return self.after.schedule_revision if self.enqueue == "publish" else self.after.content_revision

    def row(self) -> dict[str, Any]:
        """The input of the statement: only the columns that change. Parsing the rest would be most of its cost."""
        before, after = self.before, self.after
        row: dict[str, Any] = {
            "id": after.id,
            "from_status": before.status,
            "from_revision": before.revision,
            "revision": after.revision,
        }
        row |= {plain.attribute: getattr(after, plain.attribute) for plain in PLAIN}
        moved = after.schedule_revision != before.schedule_revision
        if moved or after.timezone != before.timezone:
            row |= {
                "rescheduled": True,
                "timezone": after.timezone,
                "scheduled_time": after.scheduled_time,
                "schedule_revision": after.schedule_revision,
            }
        rerendered = after.content_revision != before.content_revision
        if rerendered:
            row |= {
                "rerendered": True,
                "content_type": after.content_type,
                "content_url": after.content_url,
                "thumbnail_url": after.thumbnail_url,
                "sound_id": after.sound_id,
                "status": after.status,
                "content_revision": after.content_revision,
            }
        if moved or rerendered:
            row["anew"] = True
        # The mark names one revision in one status. Where that revision or the status changed, the mark is set anew.
        if rerendered or (moved and after.status is Status.GENERATED):
            row |= {"remark": True, "enqueued_revision": self.marked_revision}
        return row


_SET_PLAIN = ", ".join(f"{plain.attribute} = r.{plain.attribute}" for plain in PLAIN)
_PLAIN_TEXTS = ", ".join(f"{plain.attribute} text" for plain in PLAIN)
# A change of what a render reads empties the render's own columns and drops its claim.
_WRITE = expecting(
    f"""
    UPDATE posts p SET
        {_SET_PLAIN}, revision = r.revision,
        timezone = CASE WHEN r.rescheduled THEN r.timezone ELSE p.timezone END,
        scheduled_time = CASE WHEN r.rescheduled THEN r.scheduled_time ELSE p.scheduled_time END,
        schedule_revision = CASE WHEN r.rescheduled THEN r.schedule_revision ELSE p.schedule_revision END,
        content_type = CASE WHEN r.rerendered THEN r.content_type ELSE p.content_type END,
        content_url = CASE WHEN r.rerendered THEN r.content_url ELSE p.content_url END,
        thumbnail_url = CASE WHEN r.rerendered THEN r.thumbnail_url ELSE p.thumbnail_url END,
        sound_id = CASE WHEN r.rerendered THEN r.sound_id ELSE p.sound_id END,
        status = CASE WHEN r.rerendered THEN r.status ELSE p.status END,
        content_revision = CASE WHEN r.rerendered THEN r.content_revision ELSE p.content_revision END,
        rendered_url = CASE WHEN r.rerendered THEN NULL ELSE p.rendered_url END,
        claim_kind = CASE WHEN r.rerendered THEN NULL ELSE p.claim_kind END,
        claim_token = CASE WHEN r.rerendered THEN NULL ELSE p.claim_token END,
        claim_expires_at = CASE WHEN r.rerendered THEN NULL ELSE p.claim_expires_at END,
        render_tries = CASE WHEN r.rerendered THEN 0 ELSE p.render_tries END,
        render_waits_since = CASE WHEN r.rerendered THEN NULL ELSE p.render_waits_since END,
        render_outcome = CASE WHEN r.rerendered THEN NULL ELSE p.render_outcome END,
        render_message = CASE WHEN r.rerendered THEN NULL ELSE p.render_message END,
        render_answered_at = CASE WHEN r.rerendered THEN NULL ELSE p.render_answered_at END,
        retry_at = CASE WHEN r.anew THEN NULL ELSE p.retry_at END,
        enqueued_revision = CASE WHEN r.remark THEN r.enqueued_revision ELSE p.enqueued_revision END,
        enqueued_at = CASE WHEN r.remark IS NULL THEN p.enqueued_at
                           WHEN r.enqueued_revision IS NOT NULL THEN clock_timestamp() END
    FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS r(
        id text, from_status text, from_revision bigint, revision bigint, {_PLAIN_TEXTS},
        rescheduled boolean, timezone text, scheduled_time timestamptz, schedule_revision bigint,
        rerendered boolean, content_type text, content_url jsonb, thumbnail_url text, sound_id text, status text,
        content_revision bigint, anew boolean, remark boolean, enqueued_revision bigint)
    WHERE p.id = r.id AND p.status = r.from_status AND p.revision = r.from_revision AND p.deleted_at IS NULL""",
    "$2",
    "write_posts",
)


def write_posts(tx: Connection, writes: Sequence[Write]) -> None:
    """Write what decisions made of locked posts, all in one statement; StaleWriteError if a row was not as locked."""
    if writes:
        raw_statements.rows(tx, *writing(writes))


def writing(writes: Sequence[Write]) -> Statement:
    """The statement of `write_posts`, to travel with what comes after it."""
    return _WRITE, to_json([write.row() for write in writes]).decode(), len(writes)
