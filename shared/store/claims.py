"""Claims: taking a post for a render or a publish, and the guarded ways out of it (docs/lifecycle.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.failure_classes import FailureClass
from shared.domain.service_answers import Outcome
from shared.store import counted


@dataclass(frozen=True, slots=True)
class NewClaim:
    """A claim to be taken on a locked post. `from_token` is the expired claim's that it takes over, else None."""

    post_id: str
    kind: str
    token: str
    from_status: str
    from_token: str | None = None


_CLAIM = text("""
    UPDATE posts p SET claim_kind = r.kind, claim_token = r.token, enqueued_revision = NULL, enqueued_at = NULL,
        claim_expires_at = clock_timestamp() + make_interval(secs => :expiry), retry_at = NULL,
        -- A render whose holder died was a try: else a render that kills its worker would be repeated for ever.
        render_tries = p.render_tries + CASE WHEN r.kind = 'render' AND r.from_token IS NOT NULL THEN 1 ELSE 0 END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        post_id text, kind text, token text, from_status text, from_token text)
    WHERE p.id = r.post_id AND p.status = r.from_status AND p.claim_token IS NOT DISTINCT FROM r.from_token
        AND p.deleted_at IS NULL AND (p.claim_token IS NULL OR p.claim_expires_at <= clock_timestamp())
        AND (r.kind = 'render' OR r.from_token IS NOT NULL OR (
            p.held_at IS NULL AND p.missed_revision IS DISTINCT FROM p.schedule_revision))""")


def take_claims(tx: Connection, claims: Sequence[NewClaim], expiry: float) -> None:
    """Claim locked posts for `expiry` seconds: unclaimed ones, or ones whose claim has expired."""
    if claims:
        found = tx.execute(_CLAIM, {"rows": to_json(claims).decode(), "expiry": expiry}).rowcount
        counted(found, len(claims), "take_claims")


@dataclass(frozen=True, slots=True)
class Finish:
    """What becomes of a claimed post after its publish was called for, or given up. `until`: the claim stays and
    expires then, at the time of the next try; `retry_at`: the post is free again, to be tried not before. A failed one
    has its reason, its class and, where there was an answer, the answer's words. `token`: the claim's; None for a post
    that is not claimed, and went out after all.
    """

    post_id: str
    token: str | None
    status: Literal["posted", "failed", "generated"]
    platform_post_id: str | None = None
    failure_reason: str | None = None
    failure_class: FailureClass | None = None
    failure_message: str | None = None
    until: datetime | None = None
    retry_at: datetime | None = None


_FINISH = text("""
    UPDATE posts p SET
        status = r.status, platform_post_id = r.platform_post_id, failure_reason = r.failure_reason,
        failure_class = r.failure_class, failure_message = r.failure_message,
        posted_at = CASE WHEN r.status = 'posted' THEN clock_timestamp() END,
        failed_at = CASE WHEN r.status = 'failed' THEN clock_timestamp() END,
        revision = p.revision + CASE WHEN r.status = 'generated' THEN 0 ELSE 1 END,
        retry_at = r.retry_at, claim_expires_at = r.until,
        claim_kind = CASE WHEN r.until IS NOT NULL THEN p.claim_kind END,
        claim_token = CASE WHEN r.until IS NOT NULL THEN p.claim_token END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        post_id text, token text, status text, platform_post_id text, failure_reason text, failure_class text,
        failure_message text, until timestamptz, retry_at timestamptz)
    WHERE p.id = r.post_id AND p.claim_token = r.token AND p.claim_kind = 'publish' AND p.status = 'generated'
    RETURNING p.id, p.posted_at, p.revision""")


@dataclass(frozen=True, slots=True)
class Finished:
    """A post after its finish; `posted_at` where it went out."""

    posted_at: datetime | None
    revision: int


def finish_publishes(tx: Connection, finishes: Sequence[Finish]) -> dict[str, Finished]:
    """Finish publishes of locked posts whose claims were seen to be ours; how each post stands then."""
    if not finishes:
        return {}
    rows = tx.execute(_FINISH, {"rows": to_json(finishes).decode()}).all()
    counted(len(rows), len(finishes), "finish_publishes")
    return {row[0]: Finished(row[1], row[2]) for row in rows}


_UNCLAIMED = "claim_kind = NULL, claim_token = NULL, claim_expires_at = NULL"
_HELD = "WHERE id = :id AND claim_token = :token AND claim_kind = 'render' AND status = 'pending_render'"

_RENDERED = text(f"""
    UPDATE posts SET status = 'generated', rendered_url = :rendered_url,
        thumbnail_url = coalesce(:thumbnail_url, thumbnail_url), revision = revision + 1, render_tries = 0,
        render_waits_since = NULL, render_outcome = NULL, render_message = NULL, render_answered_at = NULL,
        enqueued_revision = CASE WHEN scheduled_time <= clock_timestamp() + make_interval(secs => :horizon)
                                 THEN schedule_revision END,
        enqueued_at = clock_timestamp(), {_UNCLAIMED} {_HELD}
    RETURNING schedule_revision, enqueued_revision IS NOT NULL, scheduled_time, scheduled_time <= clock_timestamp()""")
_ANSWERED = "render_outcome = :outcome, render_message = :message, render_answered_at = clock_timestamp()"
_RENDER_FAILED = text(f"""
    UPDATE posts SET status = 'failed', failure_reason = :reason, failure_class = :failure, failure_message = :message,
        failed_at = clock_timestamp(), revision = revision + 1, render_waits_since = NULL, {_ANSWERED},
        {_UNCLAIMED} {_HELD}
    RETURNING revision""")
_RENDER_GIVEN_BACK = text(f"""
    UPDATE posts SET retry_at = :retry_at, render_tries = render_tries + :tries,
        render_waits_since = coalesce(render_waits_since, CASE WHEN :waits THEN clock_timestamp() END), {_ANSWERED},
        {_UNCLAIMED} {_HELD}""")
_RENDER_LOST = text(f"UPDATE posts SET {_ANSWERED} {_HELD}")
_RENDER_WAITS_SINCE = text("SELECT render_waits_since FROM posts WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished render; `due` says that the publish has been marked and is to be enqueued, at once or at the time."""

    schedule_revision: int
    due: bool
    scheduled_time: datetime
    at_once: bool


def finish_rendered(
    tx: Connection, post_id: str, token: str, made: dict[str, Any], horizon: float
) -> Rendered | None:  # fmt: skip
    """The render succeeded: its result stands beside the source. None if the claim was no longer ours."""
    given = {"id": post_id, "token": token, "horizon": horizon}
    row = tx.execute(_RENDERED, given | made).one_or_none()
    return Rendered(*row) if row else None


@dataclass(frozen=True, slots=True)
class RenderAnswer:
    """How a try at a render ended, and the renderer's words."""

    outcome: Outcome
    message: str | None


def fail_render(
    tx: Connection, post_id: str, token: str, answer: RenderAnswer, *, reason: str, failure: FailureClass
) -> int:
    """The render of a locked post gave up after this last answer; the post's revision."""
    given = {"id": post_id, "token": token, "outcome": answer.outcome.value, "message": answer.message}
    given |= {"reason": reason, "failure": failure.value}
    revisions = list(tx.execute(_RENDER_FAILED, given).scalars())
    counted(len(revisions), 1, "fail_render")
    return int(revisions[0])


def lose_render(tx: Connection, post_id: str, token: str, message: str) -> None:
    """Record the try under an expired claim of a locked post, whose worker never wrote how it ended."""
    given = {"id": post_id, "token": token, "outcome": Outcome.UNKNOWN.value, "message": message}
    counted(tx.execute(_RENDER_LOST, given).rowcount, 1, "lose_render")


def render_waits_since(tx: Connection, post_id: str) -> datetime | None:
    """When the renderer first said "still at work" or "not now" of the locked post's content."""
    since: datetime | None = tx.execute(_RENDER_WAITS_SINCE, {"id": post_id}).scalar_one()
    return since


def give_render_back(
    tx: Connection, post_id: str, token: str, retry_at: datetime, answer: RenderAnswer, *, tries: int,
    waits: bool = False,
) -> None:  # fmt: skip
    """The locked post may be rendered again, not before `retry_at`, and keeps the answer of its latest try. `tries`
    (0 or 1) is added to its render tries. `waits`: the renderer asked to wait.
    """
    given = {"id": post_id, "token": token, "retry_at": retry_at, "tries": tries, "waits": waits}
    given |= {"outcome": answer.outcome.value, "message": answer.message}
    counted(tx.execute(_RENDER_GIVEN_BACK, given).rowcount, 1, "give_render_back")


# At random, where there are more than the limit: the first to expire may all be locked elsewhere.
_EXPIRED = text("""
    SELECT id, CASE claim_kind WHEN 'publish' THEN schedule_revision ELSE content_revision END
    FROM posts WHERE claim_kind = :kind AND claim_expires_at <= now()
    ORDER BY random() LIMIT :limit""")


def expired(tx: Connection, kind: Literal["publish", "render"], limit: int) -> list[tuple[str, int]]:
    """Posts whose claim of that kind has expired, at most `limit`: (post, the revision that its task fences on)."""
    return [(row[0], row[1]) for row in tx.execute(_EXPIRED, {"kind": kind, "limit": limit})]
