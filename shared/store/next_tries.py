"""Posts between two tries, whose service answered as it would answer any post: once it is repaired, they need not wait.

A claim that waits for its next try ends at once, and its post is taken up under its old key with its old body, as at
the end of its wait. What asks to wait, is still at work, or may have gone out keeps its own time.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from shared.domain.service_answers import Outcome
from shared.store import acts as acts_store
from shared.store import posts as posts_store
from shared.store.acts import Act, Actor

LOOKED_AT: Final = 10_000
"""Posts of each kind that are looked at, those first that are tried first."""
REPAIRED: Final = [Outcome.MISCONFIGURED.value, Outcome.NEVER_STARTED.value, Outcome.SERVER_ERROR.value]
"""Answers after which another try is worth its place as soon as the service is well."""

# Each by its own index: ix_posts_claims, ix_posts_due and ix_posts_unrendered, and ix_publish_attempts_post.
_LAST = """CROSS JOIN LATERAL (
        SELECT outcome, coalesce(message, '') AS words, claim_token AS token FROM publish_attempts
        WHERE post_id = p.id ORDER BY id DESC LIMIT 1) last"""
_FIND = text(f"""
    SELECT id, words FROM (
        SELECT p.id, last.words, last.outcome, p.workspace_id, p.account_id FROM (
            SELECT * FROM posts WHERE claim_kind = 'publish' AND claim_expires_at > now()
            ORDER BY claim_expires_at LIMIT :looked_at) p {_LAST} WHERE last.token = p.claim_token
        UNION ALL
        SELECT p.id, last.words, last.outcome, p.workspace_id, p.account_id FROM (
            SELECT * FROM posts WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL
                AND scheduled_time < now() AND retry_at > now() ORDER BY scheduled_time LIMIT :looked_at) p {_LAST}
        UNION ALL
        SELECT p.id, coalesce(p.render_message, ''), p.render_outcome, p.workspace_id, p.account_id FROM (
            SELECT * FROM posts WHERE status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
                AND retry_at > now() ORDER BY scheduled_time LIMIT :looked_at) p) waiting
    WHERE outcome = ANY(:outcomes)
        AND (CAST(:workspace AS text) IS NULL OR workspace_id = :workspace)
        AND (CAST(:account AS text) IS NULL OR account_id = :account)
        AND (CAST(:reason AS text) IS NULL OR strpos(lower(outcome || ': ' || words), lower(:reason)) > 0)
    ORDER BY id LIMIT :limit""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A post between two tries, and the words of the last answer."""

    post_id: str
    words: str


def waiting(
    tx: Connection,
    limit: int,
    *,
    reason: str | None = None,
    workspace_id: str | None = None,
    account_id: str | None = None,
) -> list[Waiting]:
    """Posts that could be tried at once. `reason`: a part of the answer's kind or words."""
    given = {"limit": limit, "looked_at": LOOKED_AT, "outcomes": REPAIRED, "reason": reason}
    rows = tx.execute(_FIND, given | {"workspace": workspace_id, "account": account_id})
    return [Waiting(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class TriedNow:
    """Below the commit, ring for `publishes` and `renders`: (post, the revision that its task fences on)."""

    publishes: list[tuple[str, int]]
    renders: list[tuple[str, int]]


_WAITS = f"""EXISTS (SELECT FROM (
        SELECT outcome, claim_token FROM publish_attempts WHERE post_id = p.id ORDER BY id DESC LIMIT 1) last
        WHERE outcome = ANY(ARRAY{REPAIRED}) AND (p.claim_token IS NULL OR claim_token = p.claim_token))"""
# The claim stays with its token: it has ended, and rescue and publish take over what has ended.
_PUBLISH_NOW = text(f"""
    UPDATE posts p SET retry_at = NULL,
        claim_expires_at = CASE WHEN p.claim_kind IS NOT NULL THEN clock_timestamp() END,
        enqueued_revision = CASE WHEN p.claim_kind IS NULL THEN p.schedule_revision END,
        enqueued_at = CASE WHEN p.claim_kind IS NULL THEN clock_timestamp() ELSE p.enqueued_at END
    WHERE p.id = ANY(:ids) AND p.status = 'generated' AND p.deleted_at IS NULL
        AND p.scheduled_time <= clock_timestamp()
        AND (p.claim_kind = 'publish' AND p.claim_expires_at > clock_timestamp()
            OR p.claim_kind IS NULL AND p.retry_at > clock_timestamp())
        AND {_WAITS}
    RETURNING p.id, p.schedule_revision, p.workspace_id, p.status, coalesce(old.claim_expires_at, old.retry_at)""")
_RENDER_NOW = text(f"""
    UPDATE posts p SET retry_at = NULL, enqueued_revision = p.content_revision, enqueued_at = clock_timestamp()
    WHERE p.id = ANY(:ids) AND p.status = 'pending_render' AND p.claim_kind IS NULL AND p.deleted_at IS NULL
        AND p.retry_at > clock_timestamp() AND p.render_outcome = ANY(ARRAY{REPAIRED})
    RETURNING p.id, p.content_revision, p.workspace_id, p.status, old.retry_at""")


def try_now(tx: Connection, post_ids: Collection[str], actor: Actor) -> TriedNow:
    """End the waits of these posts, of those that still wait. Posts that are locked elsewhere are left out: a try may
    be under way. A second call finds none of them.
    """
    ids = {"ids": list(posts_store.lock_posts(tx, post_ids, "skip"))}
    published, rendered = tx.execute(_PUBLISH_NOW, ids).all(), tx.execute(_RENDER_NOW, ids).all()
    acts = [
        Act(acts_store.TRY_NOW, "post", post_id, workspace_id, status, {"nextTryAt": next_at.isoformat()})
        for post_id, _, workspace_id, status, next_at in (*published, *rendered)
    ]
    acts_store.record(tx, actor, acts)
    return TriedNow([(row[0], row[1]) for row in published], [(row[0], row[1]) for row in rendered])
