"""What a publish task did, and the finish of its calls, which the claims' tokens fence (docs/services.md)."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from shared.domain import events
from shared.domain.posts import Post
from shared.domain.service_answers import Reply
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.claims import Attempt, AttemptResult, Finish, History
from shared.store.db import transaction
from worker import publish_rules
from worker.follow_ups import FollowUps, Publish
from worker.outbound.call_pool import Completed, finish_or_keep, transactions
from worker.retries import Limits

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Called:
    """A claim and the call to make for it. `claimed_at`: by the database's clock. `began`: monotonic seconds, taken
    before the claim's commit.
    """

    attempt: Attempt
    history: History | None
    claimed_at: datetime
    began: float


@dataclass(slots=True)
class Published:
    """What a publish task did, and what must be rung for below its latest commits.

    `outcomes`: post -> one word for operators. `unconfirmed`: claims that this task does not call for, because the
    answer to their COMMIT was lost; they may be in the rows all the same.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    follow_ups: FollowUps = field(default_factory=FollowUps)
    unconfirmed: list[Called] = field(default_factory=list)

    def summary(self) -> dict[str, int]:
        return dict(Counter(self.outcomes.values()))


def finish(completed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Write down the outcomes of calls. Returned: those to try again, since another session has locked the row."""
    return finish_or_keep(completed, lambda some: _finish(some, done), settings().claim_expiry)


def _finish(completed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Finish what can be locked, fenced by the claims' tokens: a stale finish changes nothing. The rest is returned."""
    outcomes: dict[str, str] = {}
    follow_ups = FollowUps()
    with transactions, transaction() as tx:
        locked = posts_store.lock_posts(tx, [one.item.attempt.post_id for one in completed], "skip")
        ours = [one for one in completed if one.item.attempt.post_id in locked]
        now = posts_store.clock(tx)
        tries: list[AttemptResult] = []
        finishes: list[Finish] = []
        for one in ours:
            attempt, reply = one.item.attempt, one.reply
            tries.append(AttemptResult(attempt.claim_token, reply.kind, reply.message))
            if locked[attempt.post_id].claim_token == attempt.claim_token:
                finishes.append(finish := _conclude(one.item, reply, now))
                outcomes[attempt.post_id] = "failed" if finish.status == "failed" else reply.kind
                if finish.until is not None and finish.until <= now + timedelta(seconds=settings().horizon):
                    follow_ups.publishes.append(Publish(attempt.post_id, attempt.schedule_revision, finish.until))
            else:
                outcomes[attempt.post_id] = "stale"
        claims_store.finish_attempts(tx, tries)
        follow_ups.webhooks = write_finishes(tx, finishes, locked)
    done.outcomes |= outcomes
    done.follow_ups.add(follow_ups)
    for one in ours:
        attempt = one.item.attempt
        if one.reply.kind != "done":
            log.warning("not_published", post_id=attempt.post_id, outcome=one.reply.kind, attempt=attempt.try_number)
    return [one for one in completed if one.item.attempt.post_id not in locked]


def write_finishes(tx: Connection, finishes: Sequence[Finish], locked: Mapping[str, Post]) -> list[str]:
    """Finish locked posts and record their events. Returned: the posts to ring the webhooks for, below the commit."""
    finished = claims_store.finish_publishes(tx, finishes)
    if not webhooks_store.wanted():
        return []
    happened = []
    for finish in finishes:
        post, now = locked[finish.post_id], finished[finish.post_id]
        if now.posted_at is not None:
            happened.append(events.posted(post, now.revision, now.posted_at, finish.platform_post_id))
        elif finish.failure_reason is not None:
            happened.append(events.failed(post, now.revision, finish.failure_reason))
    return webhooks_store.record(tx, happened)


def limits() -> Limits:
    """How often a publish is tried."""
    config = settings()
    return Limits(failures=config.tries_never_started, unknown=config.tries_unknown)


def _conclude(called: Called, reply: Reply, now: datetime) -> Finish:
    jitter = random.random()  # noqa: S311  -- spreads retries, guards nothing
    return publish_rules.conclude(called.attempt, called.history, reply, now=now, jitter=jitter, limits=limits())
