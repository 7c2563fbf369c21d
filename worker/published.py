"""How publishes end: what a task did, and the finish that is fenced by the claims' tokens (SPEC 6)."""

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
from worker.apply import Applied
from worker.outbound.call_pool import Completed, settled, transactions
from worker.retries import Limits

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Called:
    """One claim that is to be called for. `claimed_at` by the database's clock; `began`: monotonic seconds, from before
    the claim's commit.
    """

    attempt: Attempt
    history: History | None
    claimed_at: datetime
    began: float


@dataclass(slots=True)
class Published:
    """What a publish task did, and what is to be rung below its latest commits.

    `again`: (post, schedule revision) to come back to shortly. `edits`: posts whose queue wants `edits.apply` first.
    `early`: (post, schedule revision, seconds from now). `later`: (post, schedule revision, when) of the next try.
    `told`: posts of which the receiver of webhooks is to hear. `unsure`: claims that nobody calls for, which may stand
    although their commit was not confirmed.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    applied: Applied = field(default_factory=Applied)
    again: list[tuple[str, int]] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    early: list[tuple[str, int, float]] = field(default_factory=list)
    later: list[tuple[str, int, datetime]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    unsure: list[Called] = field(default_factory=list)

    def forget_rung(self) -> None:
        self.applied = Applied()
        self.again, self.edits, self.early, self.later, self.told = [], [], [], [], []

    def summary(self) -> dict[str, int]:
        return dict(Counter(self.outcomes.values()))


def finish(landed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Write down how calls ended; what could not be, since somebody holds the row, is to be tried again."""
    return settled(landed, lambda some: _finish(some, done), settings().claim_expiry)


def _finish(landed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Finish what can be locked, fenced by the claims' tokens: a stale finish changes nothing. The rest is returned."""
    told = Published()
    with transactions, transaction() as tx:
        locked = posts_store.lock_posts(tx, [one.item.attempt.post_id for one in landed], "skip")
        ours = [one for one in landed if one.item.attempt.post_id in locked]
        now = posts_store.clock(tx)
        ends: list[AttemptResult] = []
        finishes: list[Finish] = []
        for one in ours:
            attempt, reply = one.item.attempt, one.reply
            ends.append(AttemptResult(attempt.claim_token, reply.kind, reply.message))
            if locked[attempt.post_id].claim_token == attempt.claim_token:
                finishes.append(finish := _conclude(one.item, reply, now))
                told.outcomes[attempt.post_id] = "failed" if finish.status == "failed" else reply.kind
                if finish.until is not None and finish.until <= now + timedelta(seconds=settings().horizon):
                    told.later.append((attempt.post_id, attempt.schedule_revision, finish.until))
            else:
                told.outcomes[attempt.post_id] = "stale"
        claims_store.finish_attempts(tx, ends)
        told.told = write_finishes(tx, finishes, locked)
    done.outcomes |= told.outcomes
    done.later += told.later
    done.told += told.told
    for one in ours:
        attempt = one.item.attempt
        if one.reply.kind != "done":
            log.warning("not_published", post_id=attempt.post_id, outcome=one.reply.kind, attempt=attempt.try_number)
    return [one for one in landed if one.item.attempt.post_id not in locked]


def write_finishes(tx: Connection, finishes: Sequence[Finish], locked: Mapping[str, Post]) -> list[str]:
    """Finish locked posts and write down what is to be told of them; the posts to ring for below the commit."""
    finished = claims_store.finish_publishes(tx, finishes)
    if not webhooks_store.wanted():
        return []
    told = []
    for finish in finishes:
        post, now = locked[finish.post_id], finished[finish.post_id]
        if now.posted_at is not None:
            told.append(events.posted(post, now.revision, now.posted_at, finish.platform_post_id))
        elif finish.failure_reason is not None:
            told.append(events.failed(post, now.revision, finish.failure_reason))
    return webhooks_store.record(tx, told)


def limits() -> Limits:
    """How often a publish is tried."""
    config = settings()
    return Limits(failures=config.tries_never_started, unknown=config.tries_unknown)


def _conclude(called: Called, reply: Reply, now: datetime) -> Finish:
    jitter = random.random()  # noqa: S311  -- spreads retries, guards nothing
    return publish_rules.conclude(called.attempt, called.history, reply, now=now, jitter=jitter, limits=limits())
