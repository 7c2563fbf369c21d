"""Publish: claim, call, finish (SPEC 6). The claim drains the queue first: no accepted edit comes too late."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog
from pydantic_core import to_json

from shared import db, posts, services
from shared.db import transaction
from shared.lifecycle import ClaimKind, PostFacts, Status
from shared.posts import Post
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from shared.store.claims import Attempt, History, NewClaim
from worker import retries
from worker.apply import Applied, Attempts, apply_edits, drain
from worker.retries import Outcome

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Called:
    """One claim that is to be called for."""

    attempt: Attempt
    history: History | None


@dataclass(slots=True)
class Published:
    """What a publish task did. `again`: (post, schedule revision) to come back to shortly; `edits`: posts whose queue
    wants `edits.apply` first; `early`: (post, schedule revision, when).
    """

    applied: Applied = field(default_factory=Applied)
    outcomes: dict[str, str] = field(default_factory=dict)
    again: list[tuple[str, int, datetime | None]] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    early: list[tuple[str, int, datetime | None]] = field(default_factory=list)

    def summary(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for outcome in self.outcomes.values():
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts


def publish(
    pairs: Sequence[tuple[str, int]], calls: ThreadPoolExecutor, ring: Callable[[Published], object]
) -> Published:
    """Publish posts that are due: claim them together, call side by side, finish each.

    `ring` is called once, below the claiming commits and before the calls, with what must be rung.
    """
    done = Published()
    fenced = _compare_fences(pairs, done)
    ready = claim(fenced, done) if fenced else []
    ring(done)
    for called, outcome in zip(ready, calls.map(_call_and_finish, ready), strict=True):
        done.outcomes[called.attempt.post_id] = outcome
    return done


def _compare_fences(pairs: Sequence[tuple[str, int]], done: Published) -> dict[str, int]:
    """The posts whose schedule revision is the message's. Compared before any draining: afterwards the row decides,
    so that a stream of time edits cannot make every message stale in turn (SPEC 3.7).
    """
    with transaction() as tx:
        found, _ = posts_store.read_posts(tx, [post_id for post_id, _ in pairs])
        queues = edits_store.posts_with_a_queue(tx, found)
    fenced: dict[str, int] = {}
    for post_id, schedule_revision in pairs:
        post = found.get(post_id)
        if post is None or post.facts.deleted:
            done.outcomes[post_id] = "gone"
        elif post.facts.schedule_revision != schedule_revision:
            done.outcomes[post_id] = "superseded"
        else:
            fenced[post_id] = schedule_revision
    waiting = [post_id for post_id in queues if post_id in fenced]
    if waiting:
        done.applied = apply_edits(waiting)
    return fenced


def claim(fenced: Mapping[str, int], done: Published) -> list[Called]:
    """Claim what is due of these posts, in one transaction: lock, read the queue, apply what is left, then decide.

    `fenced`: post -> the schedule revision that its message carried.
    """
    config = settings()
    with Attempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, fenced, "skip")
        drained = drain(tx, {i: p for i, p in locked.items() if p.facts.claim is not ClaimKind.PUBLISH}, attempts)
        now = posts_store.clock(tx)
        past = claims_store.histories(tx, locked)
        ready: list[Called] = []
        claims: list[NewClaim] = []
        for post_id, post in locked.items():
            facts = drained.posts.get(post_id, post.facts)
            if post_id in drained.tried or drained.cut:
                done.outcomes[post_id] = "edits_first"
                done.edits.append(post_id)
                done.again.append((post_id, facts.schedule_revision, None))
                continue
            verdict = _verdict(facts, post, now)
            done.outcomes[post_id] = verdict
            if verdict == "early" and facts.scheduled_time <= now + timedelta(seconds=config.horizon):
                done.early.append((post_id, facts.schedule_revision, max(facts.scheduled_time, post.retry_at or now)))
            if verdict == "claim":
                history = past.get(post_id)
                attempt = _attempt(facts, post, history, post.claim_token is not None)
                claims.append(NewClaim(post_id, "publish", attempt.claim_token, facts.status, post.claim_token))
                ready.append(Called(attempt, history))
                if post.claim_token is not None:
                    claims_store.end_attempt(tx, post.claim_token, Outcome.UNKNOWN, "its holder was gone")
        claims_store.take_claims(tx, claims, config.claim_expiry)
        claims_store.record_attempts(tx, [called.attempt for called in ready])
    claimed = {called.attempt.post_id for called in ready}
    done.applied.take(drained)
    done.applied.publishes = [due for due in done.applied.publishes if due[0] not in claimed]
    for post_id, schedule_revision in fenced.items():
        if post_id not in locked:
            done.outcomes[post_id] = "held"
            done.again.append((post_id, schedule_revision, None))
    return ready


def _verdict(facts: PostFacts, post: Post, now: datetime) -> str:
    """What the row says once its queue is drained: generated and due means claim, whatever moved its counter."""
    if facts.deleted:
        return "gone"
    if facts.status is not Status.GENERATED:
        return facts.status.value
    if facts.claim is not None:
        expired = post.claim_expires_at is not None and post.claim_expires_at <= now
        return "claim" if expired else "claimed"
    if facts.scheduled_time > now:
        return "early"
    moved = facts.schedule_revision != post.facts.schedule_revision
    if post.retry_at is not None and post.retry_at > now and not moved:
        return "early"
    return "claim"


def body_of(facts: PostFacts, post: Post) -> str:
    """What the publisher is sent: the 12 fields as they stand, and what a render made (SPEC 6)."""
    shown = posts.public(post, facts) | {"renderedUrl": facts.rendered_url, "slideDuration": post.slide_duration}
    return to_json({"type": "publish", "post": shown}).decode()


def _attempt(facts: PostFacts, post: Post, history: History | None, retaken: bool) -> Attempt:  # noqa: FBT001
    """The next try: under the old key where the body is the old one, and always so for a claim that expired."""
    body = history.body if retaken and history else body_of(facts, post)
    if history is not None and history.body == body:
        key, number = history.idempotency_key, history.tries + 1
    else:
        key, number = f"pub_{uuid4().hex}", 1
    return Attempt(facts.id, facts.schedule_revision, key, body, number, f"clm_{uuid4().hex}")


def _call_and_finish(called: Called) -> str:
    attempt = called.attempt
    reply = services.call("publish", attempt.body, attempt.idempotency_key, attempt.try_number)
    return persevere(lambda: finish(called, reply))


def persevere(finish_once: Callable[[], str]) -> str:
    """Finish although a person holds the row, or PostgreSQL restarts, for as long as the claim may last.

    The call has been made; to forget its end would cost a second one under the same key.
    """
    deadline = time.monotonic() + settings().claim_expiry
    while True:
        try:
            return finish_once()
        except Exception as error:
            if not db.passing(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def finish(called: Called, reply: services.Reply) -> str:
    """Write down how the call ended, fenced by the claim's token: a stale finish changes nothing."""
    attempt, outcome = called.attempt, Outcome(reply.kind)
    with transaction() as tx:
        claims_store.end_attempt(tx, attempt.claim_token, outcome.value, reply.message)
        if not _finish(tx, called, reply, outcome):
            return "stale"
    if outcome is not Outcome.DONE:
        log.warning("publish_not_done", post_id=attempt.post_id, outcome=outcome.value, attempt=attempt.try_number)
    return outcome.value


def _finish(tx: Any, called: Called, reply: services.Reply, outcome: Outcome) -> bool:
    attempt, history, config = called.attempt, called.history, settings()
    post_id, token = attempt.post_id, attempt.claim_token
    if outcome is Outcome.DONE:
        return claims_store.finish_posted(tx, post_id, token, reply.data.get("platformPostId"))
    if outcome is Outcome.REFUSED:
        return claims_store.finish_failed(tx, post_id, token, reply.message or "refused by the publisher")
    known = history if history is not None and history.idempotency_key == attempt.idempotency_key else None
    now = posts_store.clock(tx)
    next_step = retries.after_failure(
        outcome,
        never_started=(known.never_started if known else 0) + (outcome is not Outcome.UNKNOWN),
        unknown=(known.unknown if known else 0) + (outcome is Outcome.UNKNOWN),
        first_at=known.first_started_at if known else now,
        now=now,
        luck=random.random(),  # noqa: S311  -- spreads retries, guards nothing
        most_never_started=config.tries_never_started,
        most_unknown=config.tries_unknown,
    )
    if isinstance(next_step, retries.GiveUp):
        return claims_store.finish_failed(tx, post_id, token, next_step.reason)
    if outcome is Outcome.NEVER_STARTED:
        return claims_store.give_back(tx, post_id, token, next_step.at)
    return claims_store.keep_until(tx, post_id, token, next_step.at)
