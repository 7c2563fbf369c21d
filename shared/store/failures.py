"""Putting failed posts back to due, for an operator or a client; failed_posts.py finds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.holds import Hold, Holds, in_effect
from shared.domain.ids import new_id
from shared.domain.lifecycle import ClaimKind, PostFacts, Status, needs_render
from shared.domain.posts import Post
from shared.domain.service_answers import Past
from shared.settings import settings
from shared.store import acts as acts_store
from shared.store import counted
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store.acts import Act, Actor
from shared.store.claims import Finish, Finished

KEY_TOO_OLD = "may have gone out, and its key is older than the publisher must remember"
HELD_AND_UNSURE = "is held and may have gone out: it stays failed until it is resumed; then retry it"
LOOK_FIRST = "Look at the platform first. If it did not go out: redraft posts retry {} --not-sent"


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


def put_back(
    post: PostFacts, past: Past, now: datetime, *, keeps_keys: float, not_sent: bool = False
) -> PutBack | None:
    """What an operator's retry makes of a failed post. None: it stays as it is, since it may have gone out and its key
    is too old. `past`: its tries under the latest key; `not_sent`: the operator says that none had an effect. Pure.
    """
    if past.done:
        # A 2xx is on record, which no operator's word undoes: the next claim finishes the post without a request.
        return PutBack("closed", Status.GENERATED, ClaimKind.PUBLISH)
    if past.maybe_sent and not not_sent:
        if past.key_too_old(now, keeps_keys):
            return None
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
    holds_store.lock_in_share(tx, seen)
    locked = posts_store.lock_posts(tx, seen, "skip")
    same = [post for post_id, post in locked.items() if post.facts.revision == seen[post_id]]
    return retry(tx, same, actor, not_sent=not_sent)


def held_and_unsure(tx: Connection, post_ids: Iterable[str]) -> list[str]:
    """Which of these failed posts `retry` leaves as they are, since they are held: they may have gone out, and would
    come back with a claim.
    """
    found, holds = attempts_store.histories(tx, post_ids), holds_store.of(tx, post_ids)
    posts, _ = posts_store.read_posts(tx, found)
    return sorted(
        post_id
        for post_id, one in found.items()
        if (one.past.maybe_sent or one.past.done) and _holding(posts[post_id], holds) is not None
    )


def _holding(post: Post, holds: Mapping[str, Holds]) -> Hold | None:
    return in_effect(holds.get(post.facts.id, Holds()), post.facts.schedule_revision)


def keys_too_old(tx: Connection, post_ids: Iterable[str]) -> list[str]:
    """Which of these failed posts `retry` leaves as they are without the operator's word: they may have gone out, and
    their keys are older than the publisher must remember.
    """
    found = attempts_store.histories(tx, post_ids)
    now, keeps = posts_store.clock(tx), settings().publisher_keeps_keys
    return sorted(
        post_id
        for post_id, one in found.items()
        if one.past.maybe_sent and one.past.key_too_old(now, keeps) and not one.past.done
    )


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
    is the operator's word that it did not go out: the post comes back open. Without it, posts with a key that is too
    old stay as they are (`keys_too_old` names them). A held post that may have gone out stays as it is too: its claim
    would go out under the hold (`held_and_unsure` names it). Any other held post comes back, and stays held.
    """
    failed = [post for post in posts if post.facts.status is Status.FAILED and not post.facts.deleted]
    past = attempts_store.histories(tx, [post.facts.id for post in failed])
    before = {row[0]: row[1] for row in tx.execute(_BEFORE, {"ids": [post.facts.id for post in failed]})}
    holds = holds_store.of(tx, past)
    now, keeps_keys = posts_store.clock(tx), settings().publisher_keeps_keys
    rows: list[dict[str, object]] = []
    done: list[Retried] = []
    acts: list[Act] = []
    opened: list[str] = []
    for post in failed:
        facts, history = post.facts, past.get(post.facts.id)
        tries = history.past if history is not None else Past()
        put = put_back(facts, tries, now, keeps_keys=keeps_keys, not_sent=not_sent)
        if put is None or (put.claim is not None and _holding(post, holds) is not None):
            continue
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
        opens = not_sent and not tries.done
        opened += [facts.id] if opens else []
        action = acts_store.RETRY_NOT_SENT if tries.maybe_sent and opens else acts_store.RETRY
        overwritten = before[facts.id] | {"idempotencyKey": history.idempotency_key if history else None}
        acts.append(Act(action, "post", facts.id, post.workspace_id, facts.status, overwritten))
        done.append(Retried(facts.id, put.back, revision, facts.scheduled_time))
    if not rows:
        return []
    attempts_store.forgive(tx, opened, not_sent=True)
    attempts_store.forgive(tx, {one.post_id for one in done} - set(opened))
    waits = {row[0]: row[1] for row in tx.execute(_RETRY, {"rows": to_json(rows).decode()})}
    counted(len(waits), len(rows), "retry")
    acts_store.record(tx, actor, acts)
    return [one if waits[one.post_id] else Retried(one.post_id, one.back, one.revision, None) for one in done]


_WENT_OUT = text("""
    UPDATE posts p SET status = 'posted', posted_at = clock_timestamp(), platform_post_id = r.platform_post_id,
        failure_reason = NULL, failure_class = NULL, failure_message = NULL, failed_at = NULL, retry_at = NULL,
        enqueued_revision = NULL, enqueued_at = NULL, revision = p.revision + 1
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(post_id text, platform_post_id text)
    WHERE p.id = r.post_id AND p.status <> 'posted' AND p.claim_kind IS NULL AND p.deleted_at IS NULL
    RETURNING p.id, p.posted_at, p.revision""")


def went_out(tx: Connection, finishes: Sequence[Finish], locked: Mapping[str, Post]) -> dict[str, Finished]:
    """Finish locked posts that have failed or wait, also for a render. A late 2xx says that they are out. Returned: how
    each stands then. What stood there before is kept in `acts`.
    """
    if not finishes:
        return {}
    acts = [
        Act(acts_store.WENT_OUT, "post", post_id, locked[post_id].workspace_id, stood["status"], dict(stood))
        for post_id, stood in tx.execute(_BEFORE, {"ids": [one.post_id for one in finishes]})
    ]
    rows = tx.execute(_WENT_OUT, {"rows": to_json(finishes).decode()}).all()
    counted(len(rows), len(finishes), "went_out")
    acts_store.record(tx, Actor("redraft"), acts)
    return {row[0]: Finished(row[1], row[2]) for row in rows}


# Of the posts that failed within a day the newest (ix_posts_failed), each with its tries (ix_publish_attempts_post).
_UNNOTICED = text("""
    SELECT p.id FROM (SELECT id FROM posts WHERE status = 'failed' AND deleted_at IS NULL
            AND failed_at > now() - interval '1 day' ORDER BY failed_at DESC LIMIT :looked_at) p
    WHERE EXISTS (SELECT FROM publish_attempts a WHERE a.post_id = p.id AND a.outcome = 'done')
    LIMIT :limit""")
LOOKED_AT = 5000


def unnoticed(tx: Connection, limit: int) -> list[str]:
    """Posts that failed within a day although one of their tries was answered 2xx, of the newest LOOKED_AT."""
    return list(tx.execute(_UNNOTICED, {"limit": limit, "looked_at": LOOKED_AT}).scalars())
