"""What a run left behind: the clients' log, the rows, and the publisher's journal. Facts only; the oracle judges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from shared.domain.edits import PLAIN
from shared.store.edits import AFTER

TEXTS = {plain.name: plain.attribute for plain in PLAIN}
"""The texts that an edit sets: their public name and their column. Which there are is the only thing that is taken
from the product: so a new one is judged from its first day.
"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP exchange as its client saw it. Times are seconds since 1970 by the client's clock.

    `request` is the X-Request-Id: one for each thing that the client wanted, the same in all repeats of it, which
    carry one Idempotency-Key too. `status` is None where no answer came.
    """

    request: str
    post_id: str
    body: Mapping[str, Any]
    sent: float
    answered: float | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: Any = None
    key: str | None = None
    error: str = ""

    @property
    def edit_id(self) -> str | None:
        return self.headers.get("edit-id")

    def line(self) -> str:
        took = "" if self.answered is None else f" in {(self.answered - self.sent) * 1000:.0f} ms"
        said = self.error if self.status is None else f"{self.status} {self.headers.get('etag', '')} {self.edit_id}"
        return f"{clock(self.sent)} {self.request} PATCH {self.post_id} {dict(self.body)} -> {said}{took}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a publisher received. `at`: seconds since 1970; `status`: what it answered, None if it did not."""

    at: float
    key: str
    body: str
    status: int | None = 200


@dataclass(frozen=True, slots=True)
class EditRow:
    """A row of `edits`. Times aware, UTC."""

    id: str
    post_id: str
    request_id: str | None
    changes: dict[str, Any]
    status: str
    created_at: datetime
    finalized_at: datetime | None
    attempts: int
    revision: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    error_code: str | None

    @property
    def changing(self) -> bool:
        """Whether its audit record says that it changed the post."""
        return self.status == "applied" and bool(self.before or self.after)

    def line(self) -> str:
        ended = "" if self.finalized_at is None else f" at {clock(self.finalized_at.timestamp())}"
        return (
            f"{clock(self.created_at.timestamp())} {self.id} ({self.request_id}) {self.changes} -> {self.status}"
            f"{ended} revision {self.revision} {self.before} => {self.after} {self.error_code or ''} x{self.attempts}"
        )


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A row of `publish_attempts`, in their order. `forgiven`: an operator's retry came after it; `not_sent`: with the
    word that it had no effect.
    """

    post_id: str
    idempotency_key: str
    body: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    forgiven: bool
    not_sent: bool = False

    @property
    def may_have_been_sent(self) -> bool:
        """Whether it binds key and body. A refusal binds nothing any more once somebody has retried the post."""
        return (
            self.outcome != "never_started" and not self.not_sent and not (self.outcome == "refused" and self.forgiven)
        )

    def line(self) -> str:
        return f"{clock(self.started_at.timestamp())} publish {self.idempotency_key} -> {self.outcome} {self.body}"


@dataclass(frozen=True, slots=True)
class PostRow:
    """A post: what GET shows of it that may change, its revision, whether a render would be needed, and how often it
    was put back after it had failed. `late`: 1 if it failed before an answer told that it was out.
    """

    id: str
    fields: dict[str, Any]
    revision: int
    render_as_video: bool
    posted_at: datetime | None
    retries: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it, of one moment. `first`: the posts as they were before anybody edited them."""

    first: Mapping[str, PostRow]
    posts: Mapping[str, PostRow]
    edits: Sequence[EditRow]
    attempts: Sequence[AttemptRow] = ()
    exchanges: Sequence[Exchange] = ()
    journal: Sequence[Call] | None = None

    def story(self, post_id: str) -> str:
        """All that is known of one post, for a failure's message."""
        lines = [f"before: {self.first.get(post_id)}", f"after: {self.posts.get(post_id)}"]
        lines += [one.line() for one in self.exchanges if one.post_id == post_id]
        ended = [edit for edit in self.edits if edit.post_id == post_id]
        lines += [edit.line() for edit in sorted(ended, key=lambda edit: (edit.revision or 0, edit.created_at))]
        lines += [attempt.line() for attempt in self.attempts if attempt.post_id == post_id]
        return "\n  ".join([f"{post_id}:", *lines])


def clock(seconds: float) -> str:
    """A time of day, for a history."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]


def instant(at: datetime) -> str:
    """As the API shows it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_POSTS = text("""
    SELECT p.*, (SELECT count(*) FROM acts a WHERE a.subject_id = p.id AND a.action LIKE 'retry%') AS retries,
        (SELECT count(*) FROM acts a WHERE a.subject_id = p.id AND a.action = 'went_out'
            AND a.from_state = 'failed') AS late
    FROM posts p WHERE id = ANY(:ids)""")
_EDITS = text(f"""
    SELECT id, post_id, request_id, changes, status, created_at, finalized_at, attempts, revision, before, {AFTER},
        error_code
    FROM edits WHERE post_id = ANY(:ids) ORDER BY seq""")
_ATTEMPTS = text("""
    SELECT post_id, idempotency_key, body, started_at, finished_at, outcome, forgiven, not_sent
    FROM publish_attempts WHERE post_id = ANY(:ids) ORDER BY id""")


def snapshot(engine: Engine, post_ids: Iterable[str]) -> dict[str, PostRow]:
    """The posts as they are now."""
    with engine.connect() as tx:
        return {row.id: _post(row) for row in tx.execute(_POSTS, {"ids": list(post_ids)})}


def gather(
    engine: Engine,
    first: Mapping[str, PostRow],
    exchanges: Sequence[Exchange] = (),
    journal: Sequence[Call] | None = None,
) -> Evidence:
    """Read everything about these posts, as of one moment."""
    ids = {"ids": list(first)}
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as tx:
        posts = {row.id: _post(row) for row in tx.execute(_POSTS, ids)}
        edits = [EditRow(*row) for row in tx.execute(_EDITS, ids)]
        attempts = [AttemptRow(*row) for row in tx.execute(_ATTEMPTS, ids)]
    return Evidence(first, posts, edits, attempts, exchanges, journal)


def _post(row: Any) -> PostRow:
    fields = {
        "contentType": row.content_type,
        "contentUrl": row.content_url,
        "thumbnailUrl": row.thumbnail_url,
        **{name: getattr(row, column) for name, column in TEXTS.items()},
        "soundId": row.sound_id,
        "timezone": row.timezone,
        "scheduledTime": instant(row.scheduled_time),
        "status": row.status,
    }
    return PostRow(row.id, fields, row.revision, row.render_as_video, row.posted_at, row.retries, row.late)
