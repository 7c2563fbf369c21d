"""The rules of a publish, at its claim and at its finish. Pure: rows as they were read go in, values come out.

tests/model searches every order in which these rules, worker/retries.py and shared/domain/lifecycle.py can meet.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import uuid4

from shared.domain import posts
from shared.domain.holds import Holds, in_effect
from shared.domain.lifecycle import PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import KEY_TOO_OLD, WORKER_GONE, Outcome, Past, Reply
from shared.store.claims import Finish
from shared.store.publish_attempts import Attempt, AttemptResult, History
from worker import retries
from worker.retries import Limits


@dataclass(frozen=True, slots=True)
class Taken:
    """What a claim decides about one post. `verdict`: `claim` where `attempt` is to be made, else why it is not.

    `lost`: the outcome of the try under an expired claim, which its worker never wrote. `finish`: the post fails, or it
    went out by an earlier try.
    """

    verdict: str
    attempt: Attempt | None = None
    lost: AttemptResult | None = None
    finish: Finish | None = None


HELD: Final = "held"
"""The verdict on a post that a hold keeps."""


def take(
    facts: PostFacts, post: Post, history: History | None, now: datetime, limits: Limits, *, holds: Holds | None = None
) -> Taken:  # fmt: skip
    """Whether a locked post is claimed. `post`: its row as it was locked; `facts`: as draining its queue left it;
    `holds`: all that may hold it, as they stand behind their locks.
    """
    verdict = _verdict(facts, post, now, holds or Holds())
    if verdict != "claim":
        return Taken(verdict)
    lost = AttemptResult(post.claim_token, Outcome.UNKNOWN, WORKER_GONE) if post.claim_token else None
    if history is not None and history.past.done:
        return Taken("done", lost=lost, finish=_posted(facts.id, post.claim_token, history.past))
    if post.claim_token is not None:
        give_up = history and retries.before_retaking(history.past, now, limits)
        if give_up:
            return Taken("failed", lost=lost, finish=_failed(facts.id, post.claim_token, give_up))
    return Taken("claim", _attempt(facts, post, history, now, limits), lost)


def _verdict(facts: PostFacts, post: Post, now: datetime, holds: Holds) -> str:
    """What the row says once its queue is drained: generated, due and not held means claim, whatever moved its counter.

    A claim that is taken over was there before the hold: that post may be out already, and is asked about again.
    """
    if facts.deleted:
        return "gone"
    if facts.status is not Status.GENERATED:
        return facts.status.value
    if facts.claim is not None:
        expired = post.claim_expires_at is not None and post.claim_expires_at <= now
        return "claim" if expired else "claimed"
    if in_effect(holds, facts.schedule_revision) is not None:
        return HELD
    return "not_due" if goes_at(facts, post) > now else "claim"


def goes_at(facts: PostFacts, post: Post) -> datetime:
    """When the post may go out: at its time, and not before its next try."""
    if post.retry_at is None or anew(post, facts):
        return facts.scheduled_time
    return max(facts.scheduled_time, post.retry_at)


def anew(post: Post, facts: PostFacts) -> bool:
    """Whether draining moved the post or changed its content: then it no longer waits for its next try.

    `write_posts` does the same in the row.
    """
    was = post.facts
    return (facts.schedule_revision, facts.content_revision) != (was.schedule_revision, was.content_revision)


def _attempt(facts: PostFacts, post: Post, history: History | None, now: datetime, limits: Limits) -> Attempt:
    """The next try: under the old key where the body is the old one, else under a new key.

    Key and body stay as they are where a claim expired, and where a try may have had its effect, also after an operator
    put the post back: a new key could be a second effect. Where none had one, by an operator's word, a key that the
    publisher may forget soon is not used any more: what is sent under it next could go out twice.
    """
    fixed = history is not None and (post.claim_token is not None or history.past.maybe_sent)
    body = history.body if history is not None and fixed else posts.service_body("publish", post, facts)
    if history is not None and history.body == body and (fixed or not history.past.key_too_old(now, limits.keeps_keys)):
        key, number = history.idempotency_key, history.tries + 1
    else:
        key, number = _new_key(post, history), 1
    return Attempt(facts.id, facts.schedule_revision, key, body, number, f"clm_{uuid4().hex}")


def _new_key(post: Post, history: History | None) -> str:
    """The next key of this post. It follows from what stood before it, and never from the body or from chance.

    So a database that lost the latest tries, by a failover or a restore, asks under the key that it forgot. The
    publisher knows that key: the post does not go out a second time. Unless an edit made the lost key after a try that
    never started (docs/lifecycle.md).
    """
    before = history.idempotency_key if history is not None else post.created_at.astimezone(UTC).isoformat()
    return f"pub_{sha256(f'{post.facts.id} {before}'.encode()).hexdigest()[:32]}"


def before_calling(attempt: Attempt, history: History | None, now: datetime, limits: Limits) -> Reply | None:
    """The reply in place of a call that must not begin under its key any more; else None.

    A claim that was retaken has been asked before (`take`). This is for a post that was open although it may have gone
    out, as an older version left it. The post is closed by this reply, and its next claim fails it.
    """
    if history is None or history.idempotency_key != attempt.idempotency_key:
        return None
    too_old = history.past.key_too_old(now, limits.keeps_keys)
    return Reply(Outcome.NEVER_STARTED, message=KEY_TOO_OLD) if too_old else None


def conclude(
    attempt: Attempt,
    history: History | None,
    reply: Reply,
    *,
    now: datetime,
    jitter: float,
    limits: Limits,
    latest: History | None = None,
) -> Finish:
    """What becomes of a post after its call: posted, failed, open for edits, or closed until the next try.

    `history`: the tries before this one, as they stood when it was claimed. `latest`: all tries as they stand now; an
    earlier one may have been answered 2xx meanwhile. `jitter`: 0 to 1, spreads the waits.
    """
    post_id, token = attempt.post_id, attempt.claim_token
    if latest is not None and latest.past.done:
        return _posted(post_id, token, latest.past)
    known = history is not None and history.idempotency_key == attempt.idempotency_key
    past = history.past if history is not None and known else Past()
    step = retries.what_next(reply, past, now=now, jitter=jitter, limits=limits)
    if isinstance(step, retries.Done):
        return Finish(post_id, token, "posted", platform_post_id=reply.data.get("platformPostId"))
    if isinstance(step, retries.GiveUp):
        return _failed(post_id, token, step)
    if step.free:
        return Finish(post_id, token, "generated", retry_at=step.at)
    # This call or one before it may have been sent: the post stays closed, whatever the latest try saw.
    return Finish(post_id, token, "generated", until=step.at)


def conclude_late(facts: PostFacts, latest: History | None) -> Finish | None:
    """What a recorded 2xx makes of a post that is not claimed: posted, if it has failed or waits to go out; else None.

    Until now it was not known whether the post was out. Now it is known. A post that is claimed again learns it from
    its tries. `latest`: all its tries.
    """
    unclaimed = facts.status is not Status.POSTED and facts.claim is None and not facts.deleted
    return _posted(facts.id, None, latest.past) if unclaimed and latest is not None and latest.past.done else None


def _posted(post_id: str, token: str | None, past: Past) -> Finish:
    return Finish(post_id, token, "posted", platform_post_id=past.platform_post_id)


def _failed(post_id: str, token: str, step: retries.GiveUp) -> Finish:
    return Finish(
        post_id,
        token,
        "failed",
        failure_reason=step.reason,
        failure_class=step.failure,
        failure_message=step.message,
    )
