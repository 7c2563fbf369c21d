"""Render: claim, call, finish, fenced by the content revision (SPEC 2, 6)."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from pydantic_core import to_json

from shared import posts, services
from shared.db import transaction
from shared.lifecycle import ClaimKind, Status
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store.claims import NewClaim
from worker import retries
from worker.apply import Applied, Attempts, apply_edits, drain
from worker.publish import persevere
from worker.retries import Outcome


@dataclass(slots=True)
class Rendering:
    """What a render task did, and what it wants rung: `again` (post, content revision) to come back to shortly,
    `edits` whose queue's head wants `edits.apply` first, `publish` of a post that the render has made ready.
    """

    applied: Applied = field(default_factory=Applied)
    outcome: str = ""
    again: list[tuple[str, int]] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    publish: list[tuple[str, int, datetime | None]] = field(default_factory=list)

    def come_back(self, post_id: str, content_revision: int, *, after_edits: bool = False) -> None:
        self.outcome = "edits_first" if after_edits else "held"
        self.again.append((post_id, content_revision))
        if after_edits:
            self.edits.append(post_id)


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed render: what is sent, under which key, and which try of that content it is."""

    post_id: str
    token: str
    body: str
    key: str
    number: int


def render(post_id: str, content_revision: int, ring: Callable[[Rendering], object]) -> Rendering:
    """Render one post if the message still speaks of its content. `ring` is called before the call and at the end."""
    done = Rendering()
    with transaction() as tx:
        found, _ = posts_store.read_posts(tx, [post_id])
        queue = edits_store.posts_with_a_queue(tx, found)
    post = found.get(post_id)
    if post is None or post.facts.content_revision != content_revision:
        done.outcome = "gone" if post is None else "superseded"
        return done
    if queue:
        done.applied = apply_edits(queue)
    job = _claim(post_id, content_revision, done)
    ring(done)
    if job is not None:
        done = Rendering()
        reply = services.call("render", job.body, job.key, job.number)
        done.outcome = persevere(lambda: _finish(job, reply, done))
        ring(done)
    return done


def _claim(post_id: str, content_revision: int, done: Rendering) -> Job | None:
    """Claim the post for a render of what it holds after its queue was drained; None where there is none to make."""
    with Attempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, [post_id], "skip")
        drained = drain(tx, locked, attempts)
        job = None
        if post_id not in locked:
            done.come_back(post_id, content_revision)
        elif drained.tried or drained.cut:
            done.come_back(post_id, drained.posts[post_id].content_revision, after_edits=True)
        else:
            post, facts, now = locked[post_id], drained.posts[post_id], posts_store.clock(tx)
            held = facts.claim is ClaimKind.RENDER and post.claim_expires_at is not None and post.claim_expires_at > now
            waits = post.retry_at is not None and post.retry_at > now and facts is post.facts
            if facts.deleted or facts.status is not Status.PENDING_RENDER:
                done.outcome = "gone" if facts.deleted else facts.status.value
            elif held or waits:
                done.outcome = "claimed" if held else "early"
            else:
                token = f"clm_{uuid4().hex}"
                from_token = post.claim_token if facts.claim is not None else None
                claims_store.take_claims(
                    tx, [NewClaim(post_id, "render", token, facts.status, from_token)], settings().claim_expiry
                )
                shown = posts.public(post, facts) | {
                    "renderedUrl": facts.rendered_url,
                    "slideDuration": post.slide_duration,
                }
                job = Job(
                    post_id,
                    token,
                    to_json({"type": "render", "post": shown}).decode(),
                    f"render_{post_id}_{facts.content_revision}",
                    (post.render_tries if facts.content_revision == post.facts.content_revision else 0) + 1,
                )
    done.applied.take(drained)
    if job is not None:
        done.applied.renders = []
    return job


def _finish(job: Job, reply: services.Reply, done: Rendering) -> str:
    outcome, config = Outcome(reply.kind), settings()
    if outcome is Outcome.DONE:
        made = {"rendered_url": reply.data.get("renderedUrl"), "thumbnail_url": reply.data.get("thumbnailUrl")}
        with transaction() as tx:
            rendered = claims_store.finish_rendered(tx, job.post_id, job.token, made, config.horizon)
        if rendered is None:
            return "stale"
        if rendered.due:
            at = None if rendered.at_once else rendered.scheduled_time
            done.publish.append((job.post_id, rendered.schedule_revision, at))
        return outcome.value
    return _fail(job, reply, outcome, done)


def _fail(job: Job, reply: services.Reply, outcome: Outcome, done: Rendering) -> str:
    """Try again later, or fail the post; not before its queue was drained, for an edit may have mended it."""
    config = settings()
    with Attempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, [job.post_id], "wait")
        drained = drain(tx, locked, attempts)
        now = posts_store.clock(tx)
        post = locked.get(job.post_id)
        written = "stale"
        if post is not None and post.claim_token == job.token and drained.posts[job.post_id].claim is not None:
            verdict: retries.Again | retries.GiveUp = retries.GiveUp(reply.message or "refused by the renderer")
            if outcome is not Outcome.REFUSED:
                verdict = retries.after_failure(
                    # A render has no effect outside: an unknown outcome is simply one more try.
                    Outcome.SERVER_ERROR,
                    never_started=job.number,
                    unknown=0,
                    first_at=now,
                    now=now,
                    luck=random.random(),  # noqa: S311  -- spreads retries, guards nothing
                    most_never_started=config.tries_never_started,
                    unavailable=retries.RENDERER_UNAVAILABLE,
                )
            if drained.tried or drained.cut:
                # What waits behind a tried edit may mend the post too: give it back, and come again after the edits.
                claims_store.give_back(tx, job.post_id, job.token, now)
                done.come_back(job.post_id, post.facts.content_revision, after_edits=True)
                written = done.outcome
            elif isinstance(verdict, retries.Again):
                claims_store.give_back(tx, job.post_id, job.token, verdict.at, render_tries=1)
                written = outcome.value
            else:
                claims_store.finish_failed(tx, job.post_id, job.token, verdict.reason)
                written = "failed"
    done.applied.take(drained)
    return written
