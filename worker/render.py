"""Render: claim, call, finish, fenced by the content revision (docs/services.md)."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import uuid4

import structlog
from sqlalchemy import Connection

from shared.domain import events, posts
from shared.domain.failure_classes import RENDERER_UNAVAILABLE, FailureClass
from shared.domain.lifecycle import PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import WORKER_GONE, Outcome, Past, Reply
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import db
from shared.store import posts as posts_store
from shared.store import schedule as schedule_store
from shared.store import webhooks as webhooks_store
from shared.store.claims import NewClaim, RenderAnswer
from shared.store.db import transaction
from worker import retries
from worker.apply import apply_edits, drain
from worker.attempts import EditAttempts
from worker.follow_ups import SNOOZE, FollowUps, Publish, Render
from worker.outbound import services
from worker.publish_rules import anew
from worker.retries import Limits

NEVER_ENDED = retries.GiveUp(RENDERER_UNAVAILABLE, FailureClass.RENDER_UNAVAILABLE, WORKER_GONE)
"""What becomes of a post whose renders all ended with their workers."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Rendering:
    """What a render task did, in one word for operators, and what must be rung for below its commits."""

    outcome: str = ""
    follow_ups: FollowUps = field(default_factory=FollowUps)


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed render: what is sent, under which key, which try of that content it is, and the database's clock."""

    post_id: str
    token: str
    body: str
    key: str
    number: int
    claimed_at: datetime


def render(post_id: str, content_revision: int, send: Callable[[FollowUps], object]) -> Rendering:
    """Render one post if the message's revision is still that of its content.

    `send` gets what must be rung for, before the call and at the end.
    """
    done = Rendering()
    job = begin(post_id, content_revision, done)
    send(done.follow_ups)
    if job is not None:
        reply = services.call("render", job.body, job.key, job.number, job.claimed_at)
        done = retry_finish(lambda: _finish(job, reply))
        send(done.follow_ups)
    return done


def begin(post_id: str, content_revision: int, done: Rendering) -> Job | None:
    """Compare the message's fence, run the ordinary apply, then claim: what is to be called for, or None."""
    with transaction() as tx:
        fence = schedule_store.fences(tx, [post_id]).get(post_id)
    if fence is None or fence.deleted or fence.content_revision != content_revision:
        done.outcome = "gone" if fence is None or fence.deleted else "superseded"
        return None
    if fence.queued:
        done.follow_ups.add(apply_edits([post_id]).follow_ups)
    return _claim(post_id, content_revision, done)


def retry_finish(finish_once: Callable[[], Rendering]) -> Rendering:
    """Retry a finish, while a person has the row locked or PostgreSQL restarts, as long as the claim may last."""
    deadline = time.monotonic() + settings().claim_expiry
    while True:
        try:
            return finish_once()
        except Exception as error:
            if not db.is_transient(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _claim(post_id: str, content_revision: int, done: Rendering) -> Job | None:
    """Claim the post for a render of its content after its queue was drained; None where no render is to be made."""
    with EditAttempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, [post_id], "skip")
        drained = drain(tx, locked, attempts)
        job = None
        if post_id not in locked:
            done.outcome = "contended"
            done.follow_ups.snooze(SNOOZE, Render(post_id, content_revision))
        elif drained.unfinished:
            done.outcome = "edits_first"
            done.follow_ups.edits_first.append(post_id)
            done.follow_ups.snooze(SNOOZE, Render(post_id, drained.posts[post_id].content_revision))
            schedule_store.mark_again(tx, [post_id])
        else:
            post, facts = locked[post_id], drained.posts[post_id]
            now = posts_store.clock(tx)
            done.outcome = _verdict(post, facts, now)
            if done.outcome == "claim":
                job = _job(post, facts, now)
                retaken = facts.claim is not None
                if retaken and job.number > settings().tries_never_started:
                    # Each worker that had the claim died in its call. Only here can those tries be counted.
                    done.follow_ups.webhooks += _give_up(tx, post, post.claim_token or "", NEVER_ENDED, Outcome.UNKNOWN)
                    done.outcome, job = "failed", None
                else:
                    from_token = post.claim_token if retaken else None
                    if from_token is not None:
                        claims_store.lose_render(tx, post_id, from_token, WORKER_GONE)
                    claim = NewClaim(post_id, "render", job.token, facts.status, from_token)
                    claims_store.take_claims(tx, [claim], settings().claim_expiry)
    done.follow_ups.add(drained.committed())
    if job is not None:
        done.follow_ups.renders = []
    return job


def _verdict(post: Post, facts: PostFacts, now: datetime) -> str:
    """What the row says once its queue is drained."""
    if facts.deleted:
        return "gone"
    if facts.status is not Status.PENDING_RENDER:
        return facts.status.value
    if facts.claim is not None and post.claim_expires_at is not None and post.claim_expires_at > now:
        return "claimed"
    waits = not anew(post, facts) and post.retry_at is not None and post.retry_at > now
    return "not_due" if waits else "claim"


def _job(post: Post, facts: PostFacts, now: datetime) -> Job:
    same = facts.content_revision == post.facts.content_revision
    body = posts.service_body("render", post, facts)
    # The body has the caption too, which may change between two tries: never two bodies under one key.
    key = f"render_{facts.id}_{facts.content_revision}_{sha256(body.encode()).hexdigest()[:16]}"
    tries = post.render_tries + (facts.claim is not None) if same else 0
    return Job(facts.id, f"clm_{uuid4().hex}", body, key, tries + 1, now)


def _finish(job: Job, reply: Reply) -> Rendering:
    """Write down how the call ended, fenced by the claim's token: a stale result changes nothing."""
    outcome, config, done = Outcome(reply.kind), settings(), Rendering()
    done.outcome = outcome.value
    if outcome is not Outcome.DONE:
        log.warning("not_rendered", post_id=job.post_id, outcome=outcome.value, attempt=job.number)
        _fail(job, reply, outcome, done)
        return done
    made = {"rendered_url": reply.data.get("renderedUrl"), "thumbnail_url": reply.data.get("thumbnailUrl")}
    with transaction() as tx:
        rendered = claims_store.finish_rendered(tx, job.post_id, job.token, made, config.horizon)
    if rendered is None:
        done.outcome = "stale"
    elif rendered.due:
        at = None if rendered.at_once else rendered.scheduled_time
        done.follow_ups.publishes.append(Publish(job.post_id, rendered.schedule_revision, at))
    return done


def _fail(job: Job, reply: Reply, outcome: Outcome, done: Rendering) -> None:
    """Drain the queue, since an edit may have mended the post; then snooze the render, or fail the post."""
    post_id, token = job.post_id, job.token
    answer = RenderAnswer(outcome, reply.message)
    with EditAttempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, [post_id], "wait")
        drained = drain(tx, locked, attempts)
        post, now = locked.get(post_id), posts_store.clock(tx)
        if post is None or post.claim_token != token or drained.posts[post_id].claim is None:
            done.outcome = "stale"
        elif drained.unfinished:
            # The edits that are left may mend the post too. It is given back at no cost, and comes after them.
            claims_store.give_render_back(tx, post_id, token, now, answer, tries=0)
            schedule_store.mark_again(tx, [post_id])
            done.outcome = "edits_first"
            done.follow_ups.edits_first.append(post_id)
            done.follow_ups.snooze(SNOOZE, Render(post_id, post.facts.content_revision))
        else:
            waits = outcome in {Outcome.PROCESSING, Outcome.NOT_NOW}
            since = claims_store.render_waits_since(tx, post_id) if waits else None
            step = _after(reply, job, now, since)
            if isinstance(step, retries.Retry):
                claims_store.give_render_back(tx, post_id, token, step.at, answer, tries=0 if waits else 1, waits=waits)
                wait = step.at - now
                if wait <= timedelta(seconds=settings().horizon):
                    done.follow_ups.snooze(wait.total_seconds(), Render(post_id, post.facts.content_revision))
            elif isinstance(step, retries.GiveUp):
                done.follow_ups.webhooks += _give_up(tx, post, token, step, outcome)
                done.outcome = "failed"
    done.follow_ups.add(drained.committed())


def _give_up(tx: Connection, post: Post, token: str, step: retries.GiveUp, outcome: Outcome) -> list[str]:
    """Fail the render. Returned: the posts to ring the webhooks for, below the commit."""
    answer = RenderAnswer(outcome, step.message)
    revision = claims_store.fail_render(tx, post.facts.id, token, answer, reason=step.reason, failure=step.failure)
    return webhooks_store.record(tx, [events.failed(post, revision, step.reason)]) if webhooks_store.wanted() else []


def _after(reply: Reply, job: Job, now: datetime, waits_since: datetime | None) -> retries.Step:
    """What follows. `waits_since`: when the renderer first said "still at work" or "not now" of the content."""
    past = Past(failures=job.number - 1, busy_since=waits_since, working_since=waits_since)
    limits = Limits(
        failures=settings().tries_never_started,
        unavailable=RENDERER_UNAVAILABLE,
        refused="refused by the renderer",
        effect=False,
    )
    jitter = random.random()  # noqa: S311  -- spreads retries, guards nothing
    return retries.what_next(reply, past, now=now, jitter=jitter, limits=limits)
