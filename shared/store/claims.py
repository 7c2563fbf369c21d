"""Claims: taking a post for a render or a publish, and the guarded ways out of it (docs/lifecycle.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.failure_classes import FailureClass
from shared.domain.service_answers import FAILURES, NOT_SENT, Outcome, Past
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
        AND p.deleted_at IS NULL AND (p.claim_token IS NULL OR p.claim_expires_at <= clock_timestamp())""")


def take_claims(tx: Connection, claims: Sequence[NewClaim], expiry: float) -> None:
    """Claim locked posts for `expiry` seconds: unclaimed ones, or ones whose claim has expired."""
    if claims:
        found = tx.execute(_CLAIM, {"rows": to_json(claims).decode(), "expiry": expiry}).rowcount
        counted(found, len(claims), "take_claims")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at publishing a post. Key and body outlive it: the next try with the same body repeats both."""

    post_id: str
    schedule_revision: int
    idempotency_key: str
    body: str
    try_number: int
    claim_token: str


_ATTEMPTS = text("""
    INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token)
    SELECT r.post_id, r.schedule_revision, r.idempotency_key, r.body, r.try_number, r.claim_token
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        post_id text, schedule_revision bigint, idempotency_key text, body text, try_number integer,
        claim_token text)""")


def record_attempts(tx: Connection, attempts: Sequence[Attempt]) -> None:
    """Record each try before it is made. The rows prove that a post went out once."""
    if attempts:
        tx.execute(_ATTEMPTS, {"rows": to_json(attempts).decode()})


@dataclass(frozen=True, slots=True)
class History:
    """What was tried for a post under its latest key. `tries` numbers them all; `past` is what they say together."""

    post_id: str
    idempotency_key: str
    body: str
    tries: int
    past: Past


# The same as Past.with_try, computed over all rows of a key. A try without an outcome is under way, or its holder has
# died: it may have been sent.
_HISTORY = text("""
    SELECT l.post_id, l.idempotency_key, l.body, t.*
    FROM (SELECT DISTINCT ON (post_id) post_id, idempotency_key, body FROM publish_attempts
          WHERE post_id = ANY(:ids) ORDER BY post_id, id DESC) l
    CROSS JOIN LATERAL (
        SELECT max(try_number) AS tries,
            count(*) FILTER (WHERE NOT forgiven AND outcome = ANY(:failures)) AS failures,
            count(*) FILTER (WHERE NOT forgiven AND (outcome = 'unknown' OR outcome IS NULL)) AS unknown,
            count(*) FILTER (WHERE NOT forgiven AND outcome = 'not_now') AS waits,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = ANY(:failures)) AS failing_since,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = 'not_now') AS busy_since,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = 'processing') AS working_since,
            bool_or(NOT not_sent AND (outcome = 'unknown' OR outcome IS NULL))
                AND NOT bool_or(coalesce(outcome, '') = 'done') AS uncertain,
            bool_or(NOT not_sent AND coalesce(outcome, '') = 'processing') AS accepted,
            bool_or(NOT not_sent AND coalesce(outcome, '') <> ALL(:harmless)) AS maybe_sent,
            -- No operator's word changes what the publisher has seen and said.
            min(started_at) FILTER (WHERE coalesce(outcome, '') <> ALL(:harmless)) AS maybe_since,
            bool_or(coalesce(outcome, '') = 'done') AS done,
            min(platform_post_id) AS platform_post_id
        FROM publish_attempts a WHERE a.post_id = l.post_id AND a.idempotency_key = l.idempotency_key) t""")
_FAILURES = [outcome.value for outcome in FAILURES]
HARMLESS = [outcome.value for outcome in NOT_SENT]


def histories(tx: Connection, post_ids: Iterable[str]) -> dict[str, History]:
    """The tries so far, of posts that have any."""
    given = {"ids": list(post_ids), "failures": _FAILURES, "harmless": HARMLESS}
    return {
        post_id: History(post_id, key, body, tries, Past(*past))
        for post_id, key, body, tries, *past in tx.execute(_HISTORY, given)
    }


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of the try under a claim's token."""

    token: str
    outcome: str
    message: str | None
    platform_post_id: str | None = None


# A 2xx counts however late it comes: "unknown" then only said that its worker was gone.
_FINISH_ATTEMPTS = text("""
    UPDATE publish_attempts a SET outcome = r.outcome, message = r.message, platform_post_id = r.platform_post_id,
        finished_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        token text, outcome text, message text, platform_post_id text)
    WHERE a.claim_token = r.token
        AND (a.outcome IS NULL OR (a.outcome = 'unknown' AND r.outcome = 'done'))""")


def finish_attempts(tx: Connection, results: Sequence[AttemptResult]) -> None:
    """Record the results of tries of locked posts. A try keeps the result that it has, save where a 2xx comes late."""
    if results:
        tx.execute(_FINISH_ATTEMPTS, {"rows": to_json(results).decode()})


# One row a statement, which commits at once: so that it waits for no second lock while it holds one.
_FINISH_ONE_ATTEMPT = text("""
    UPDATE publish_attempts SET outcome = :outcome, message = :message, platform_post_id = :platform_post_id,
        finished_at = clock_timestamp()
    WHERE claim_token = :token AND (outcome IS NULL OR (outcome = 'unknown' AND :outcome = 'done'))""")


def finish_attempt_alone(tx: Connection, result: AttemptResult) -> None:
    """Record the result of a try whose post is locked elsewhere, on a connection where each statement commits.

    The next claim of the post then knows how the try ended, although its worker could not finish the post.
    """
    tx.execute(_FINISH_ONE_ATTEMPT, asdict(result))


_FORGIVE = text("""
    UPDATE publish_attempts SET forgiven = true, not_sent = not_sent OR :not_sent
    WHERE post_id = ANY(:ids) AND NOT (forgiven AND (not_sent OR NOT :not_sent))""")


def forgive(tx: Connection, post_ids: Iterable[str], *, not_sent: bool = False) -> None:
    """An operator retries these posts: earlier tries no longer count against them, key and body stay.

    `not_sent`: the operator says that none of them had an effect; body and key may then change.
    """
    tx.execute(_FORGIVE, {"ids": list(post_ids), "not_sent": not_sent})


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
