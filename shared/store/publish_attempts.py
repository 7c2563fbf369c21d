"""Publish attempts: recorded before the call, finished with its result, read as one history (docs/lifecycle.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.service_answers import FAILURES, NOT_SENT, Past


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
    """What was tried for a post under its latest key. `tries` numbers them all; `past` is what they say together. A 2xx
    counts under any key: the post is out.
    """

    post_id: str
    idempotency_key: str
    body: str
    tries: int
    past: Past


# The same as Past.with_try, computed over all rows of a key. A try without an outcome is under way, or its holder has
# died: it may have been sent.
_HISTORY = text("""
    SELECT l.post_id, l.idempotency_key, l.body, t.*, d.*
    FROM (SELECT DISTINCT ON (post_id) post_id, idempotency_key, body FROM publish_attempts
          WHERE post_id = ANY(:ids) ORDER BY post_id, id DESC) l
    CROSS JOIN LATERAL (
        SELECT count(*) > 0 AS done, min(platform_post_id) AS platform_post_id
        FROM publish_attempts a WHERE a.post_id = l.post_id AND a.outcome = 'done') d
    CROSS JOIN LATERAL (
        SELECT max(try_number) AS tries,
            count(*) FILTER (WHERE NOT forgiven AND outcome = ANY(:failures)) AS failures,
            count(*) FILTER (WHERE NOT forgiven AND (outcome = 'unknown' OR outcome IS NULL)) AS unknown,
            count(*) FILTER (WHERE NOT forgiven AND outcome = 'not_now') AS waits,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = ANY(:failures)) AS failing_since,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = 'not_now') AS busy_since,
            min(started_at) FILTER (WHERE NOT forgiven AND outcome = 'processing') AS working_since,
            bool_or(NOT not_sent AND (outcome = 'unknown' OR outcome IS NULL))
                AND NOT d.done AS uncertain,
            bool_or(NOT not_sent AND coalesce(outcome, '') = 'processing') AS accepted,
            bool_or(NOT not_sent AND coalesce(outcome, '') <> ALL(:harmless)) AS maybe_sent,
            -- No operator's word changes what the publisher has seen and said.
            min(started_at) FILTER (WHERE coalesce(outcome, '') <> ALL(:harmless)) AS maybe_since
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
