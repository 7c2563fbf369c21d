"""What a publish task did, and the finish of its calls, which the claims' tokens fence (docs/services.md)."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from shared.domain import events
from shared.domain.lifecycle import Status
from shared.domain.posts import Post
from shared.domain.service_answers import Outcome, Reply
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import failures
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store import webhooks as webhooks_store
from shared.store.claims import Finish
from shared.store.db import autocommit, transaction
from shared.store.publish_attempts import Attempt, AttemptResult, History
from worker import publish_rules
from worker.follow_ups import FollowUps, Publish
from worker.outbound.call_pool import Completed, finish_or_keep, transactions
from worker.retries import Limits

UNNOTICED_AT_ONCE = 500

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
    answer to their COMMIT was lost; they may be in the rows all the same. `recorded`: tokens of tries whose results
    were recorded while their posts were locked elsewhere.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    follow_ups: FollowUps = field(default_factory=FollowUps)
    unconfirmed: list[Called] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)

    def summary(self) -> dict[str, int]:
        return dict(Counter(self.outcomes.values()))


def finish(completed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Write down the outcomes of calls. Returned: those to try again, since another session has locked the row."""
    return finish_or_keep(completed, lambda some: _finish_or_record(some, done), settings().claim_expiry)


def _finish_or_record(completed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Finish what can be locked. Of the rest, record the results, and return it.

    The lock may outlast the claim, and this worker may die before the lock is gone. The result must not be lost: the
    next claim would ask the publisher again. `publish_attempts` has no foreign key to posts, so its rows are free.
    """
    rest = _finish(completed, done)
    new = [one for one in rest if one.item.attempt.claim_token not in done.recorded]
    if new:
        with transactions, autocommit() as tx:
            for one in new:
                attempts_store.finish_attempt_alone(tx, _result(one))
                attempt = one.item.attempt
                done.recorded.add(attempt.claim_token)
                log.info(
                    "post_locked_elsewhere",
                    post_id=attempt.post_id,
                    outcome=one.reply.kind,
                    attempt=attempt.try_number,
                    meaning="the result of the try is recorded; the post is finished when the lock is gone",
                )
    return rest


def _result(completed: Completed[Called]) -> AttemptResult:
    reply = completed.reply
    token, platform_post_id = completed.item.attempt.claim_token, reply.data.get("platformPostId")
    return AttemptResult(token, reply.kind, reply.message, platform_post_id)


def _finish(completed: Sequence[Completed[Called]], done: Published) -> list[Completed[Called]]:
    """Finish what can be locked, fenced by the claims' tokens. The rest is returned.

    A stale finish changes nothing, save one: a 2xx says that a post is out which has failed or was put back meanwhile.
    """
    outcomes: dict[str, str] = {}
    follow_ups = FollowUps()
    with transactions, transaction() as tx:
        locked = posts_store.lock_posts(tx, [one.item.attempt.post_id for one in completed], "skip")
        ours = [one for one in completed if one.item.attempt.post_id in locked]
        now = posts_store.clock(tx)
        attempts_store.finish_attempts(tx, [_result(one) for one in ours])
        # An earlier try may have been answered 2xx since this one was claimed, under this key or another.
        asked = [one.item.attempt.post_id for one in ours if _asks_the_tries(one, locked[one.item.attempt.post_id])]
        latest = attempts_store.histories(tx, asked) if asked else {}
        finishes: list[Finish] = []
        for one in ours:
            attempt, reply = one.item.attempt, one.reply
            post = locked[attempt.post_id]
            if post.claim_token == attempt.claim_token:
                finishes.append(finish := _conclude(one.item, reply, now, latest.get(attempt.post_id)))
                outcomes[attempt.post_id] = _word(finish, reply)
                if finish.until is not None and finish.until <= now + timedelta(seconds=settings().horizon):
                    follow_ups.publishes.append(Publish(attempt.post_id, attempt.schedule_revision, finish.until))
            else:
                # Of several late answers to one post the first does it.
                known = latest.get(attempt.post_id) if attempt.post_id not in outcomes else None
                late = publish_rules.conclude_late(post.facts, known)
                finishes += [late] if late else []
                known_out = reply.kind == Outcome.DONE and post.facts.status is Status.POSTED
                outcomes.setdefault(attempt.post_id, "done" if late or known_out else "stale")
        follow_ups.webhooks = write_finishes(tx, finishes, locked)
    done.outcomes |= outcomes
    done.follow_ups.add(follow_ups)
    for one in ours:
        attempt = one.item.attempt
        if one.reply.kind != "done":
            log.warning("not_published", post_id=attempt.post_id, outcome=one.reply.kind, attempt=attempt.try_number)
    return [one for one in completed if one.item.attempt.post_id not in locked]


def finish_unnoticed() -> list[str]:
    """Finish failed posts of which a 2xx is on record. Returned: these posts.

    The 2xx came while another session had the post locked, and its worker died before the lock was gone, or gave up.
    """
    with transaction() as tx:
        locked = posts_store.lock_posts(tx, failures.unnoticed(tx, UNNOTICED_AT_ONCE), "skip")
        latest = attempts_store.histories(tx, locked) if locked else {}
        found = [publish_rules.conclude_late(post.facts, latest.get(post_id)) for post_id, post in locked.items()]
        finishes = [finish for finish in found if finish is not None]
        webhooks = write_finishes(tx, finishes, locked)
    FollowUps(webhooks=webhooks).send()
    return [finish.post_id for finish in finishes]


def _asks_the_tries(completed: Completed[Called], post: Post) -> bool:
    """Whether what becomes of a locked post depends on other tries than this one."""
    done = completed.reply.kind == Outcome.DONE
    return done if post.claim_token != completed.item.attempt.claim_token else not done


def write_finishes(tx: Connection, finishes: Sequence[Finish], locked: Mapping[str, Post]) -> list[str]:
    """Finish locked posts and record their events. Returned: the posts to ring the webhooks for, below the commit."""
    late = [one for one in finishes if one.token is None]
    finished = claims_store.finish_publishes(tx, [one for one in finishes if one.token is not None])
    finished |= failures.went_out(tx, late, locked)
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
    return Limits(
        failures=config.tries_never_started,
        unknown=config.tries_unknown,
        keeps_keys=config.publisher_keeps_keys,
    )


def _conclude(called: Called, reply: Reply, now: datetime, latest: History | None) -> Finish:
    jitter = random.random()  # noqa: S311  -- spreads retries, guards nothing
    return publish_rules.conclude(
        called.attempt, called.history, reply, now=now, jitter=jitter, limits=limits(), latest=latest
    )


def _word(finish: Finish, reply: Reply) -> str:
    """What became of a post, for operators."""
    return {"failed": "failed", "posted": "done"}.get(finish.status, reply.kind)
