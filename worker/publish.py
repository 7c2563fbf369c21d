"""Publish: claim, call, finish. The claim drains the queue first: no accepted edit comes too late."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import Outcome, Reply
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import publish_attempts as attempts_store
from shared.store import schedule as schedule_store
from shared.store.claims import Finish, NewClaim
from shared.store.db import transaction
from shared.telemetry import metrics
from worker import publish_rules
from worker.apply import Drained, apply_edits, drain
from worker.attempts import EditAttempts
from worker.follow_ups import SNOOZE, FollowUps, Publish
from worker.outbound import services
from worker.outbound.call_pool import CallPool, Completed, InFlight, transactions
from worker.published import Called, Published, finish, limits, write_finishes

PATIENCE = 10.0
"""Seconds after which a task that finds no capacity for its calls ends; dispatch rings again for an overdue post."""

POLL = 0.05
"""Seconds between two looks at calls in flight, while there is other work."""


def publish(pairs: Sequence[tuple[str, int]], calls: CallPool, send: Callable[[FollowUps], object]) -> Published:
    """Publish posts that are due. Claim as many together as there is capacity for, call, finish as answers come.

    `pairs`: (post, schedule revision). `send` is called below commits, with what must be rung for.
    """
    done, in_flight = Published(), InFlight[Called](calls)

    def send_follow_ups() -> None:
        send(done.follow_ups)
        done.follow_ups = FollowUps()

    rest = _compare_fences(pairs, done)
    unfinished: list[Completed[Called]] = []
    try:
        while rest:
            busy = bool(in_flight.count or unfinished)
            capacity = calls.take(len(rest), POLL if busy else PATIENCE)
            if not capacity and not busy:
                done.outcomes |= dict.fromkeys((post_id for post_id, _ in rest), "busy")
                break
            _claim_and_call(dict(rest[:capacity]), capacity, calls, in_flight, done)
            rest = rest[capacity:]
            send_follow_ups()
            unfinished = finish([*unfinished, *in_flight.completed(0 if capacity else POLL)], done)
            send_follow_ups()
    finally:
        # Calls in flight are finished, whatever became of the rest.
        unfinished += _not_called(done.unconfirmed)
        while in_flight.count or unfinished:
            unfinished = finish([*unfinished, *in_flight.completed(POLL if unfinished else None)], done)
            send_follow_ups()
    return done


def _compare_fences(pairs: Sequence[tuple[str, int]], done: Published) -> list[tuple[str, int]]:
    """The posts whose schedule revision is the message's. Compared before any draining; afterwards the row decides.

    So a stream of time edits cannot make every message stale in turn.
    """
    with transactions, transaction() as tx:
        fences = schedule_store.fences(tx, [post_id for post_id, _ in pairs])
    fenced: dict[str, int] = {}
    for post_id, schedule_revision in pairs:
        fence = fences.get(post_id)
        if fence is None or fence.deleted:
            done.outcomes[post_id] = "gone"
        elif fence.status != Status.GENERATED:
            # A queued edit may make the post ready. The task that applies that edit then rings for the publish.
            done.outcomes[post_id] = fence.status
        elif fence.schedule_revision == schedule_revision:
            fenced[post_id] = schedule_revision
        elif post_id not in fenced:
            done.outcomes[post_id] = "superseded"
    queued = [post_id for post_id in fenced if fences[post_id].queued]
    if queued:
        done.follow_ups.add(apply_edits(queued).follow_ups)
    return list(fenced.items())


def _claim_and_call(
    fenced: Mapping[str, int], capacity: int, calls: CallPool, in_flight: InFlight[Called], done: Published
) -> None:
    """Claim these posts, for whose calls `capacity` was taken, and call for those that were claimed."""
    ready: list[Called] = []
    try:
        ready = claim(fenced, done) if fenced else []
    finally:
        calls.give_back(capacity - len(ready))
    for called in ready:
        in_flight.start(called, _call)


def _not_called(unconfirmed: Sequence[Called]) -> list[Completed[Called]]:
    """Claims whose COMMIT may have succeeded although its answer was lost, as calls that were never made.

    Only this process knows that. If it did not write that down, each would count as a try of unknown outcome.
    """
    reply = Reply(Outcome.NEVER_STARTED, message="the commit of its claim was not confirmed: no call was made")
    return [Completed(called, reply, time.monotonic()) for called in unconfirmed]


def claim(fenced: Mapping[str, int], done: Published) -> list[Called]:
    """Claim what is due of these posts, in one transaction: lock, read the queue, apply what is left, then decide.

    The holds are locked in share before the posts, and read behind both locks. So no hold begins between its reading
    and the claim's commit.
    `fenced`: post -> the schedule revision that its message carried.
    """
    began, config = time.monotonic(), settings()
    ready: list[Called] = []
    outcomes: dict[str, str] = {}
    follow_ups = FollowUps()
    with _noting_unconfirmed(ready, done), transactions, EditAttempts() as attempts, transaction() as tx:
        free = holds_store.lock_for_claim(tx, fenced)
        locked, holds = free.posts, free.holds
        open_posts = {i: post for i, post in locked.items() if post.facts.claim is not ClaimKind.PUBLISH}
        drained = drain(tx, open_posts, attempts)
        behind = drained.unfinished
        past = attempts_store.histories(tx, locked)
        now = posts_store.clock(tx)
        claims: list[NewClaim] = []
        lost: list[attempts_store.AttemptResult] = []
        finishes: list[Finish] = []
        for post_id, post in locked.items():
            facts, history = drained.posts.get(post_id, post.facts), past.get(post_id)
            taken = (
                publish_rules.Taken("edits_first")
                if post_id in behind
                else publish_rules.take(facts, post, history, now, limits(), holds=holds.get(post_id))
            )
            if taken.lost is not None:
                lost.append(taken.lost)
            if taken.finish is not None:
                finishes.append(taken.finish)
            if (attempt := taken.attempt) is not None:
                claims.append(NewClaim(post_id, "publish", attempt.claim_token, facts.status, post.claim_token))
                ready.append(Called(attempt, history, now, began))
            outcomes[post_id] = taken.verdict
            _snooze(taken.verdict, facts, post, drained, follow_ups, now=now)
        attempts_store.finish_attempts(tx, lost)
        follow_ups.webhooks += write_finishes(tx, finishes, locked)
        claims_store.take_claims(tx, claims, config.claim_expiry)
        attempts_store.record_attempts(tx, [called.attempt for called in ready])
        if follow_ups.edits_first:
            schedule_store.mark_again(tx, follow_ups.edits_first)
        if held := [post_id for post_id, outcome in outcomes.items() if outcome == publish_rules.HELD]:
            schedule_store.unmark(tx, held)
    claimed = {called.attempt.post_id for called in ready}
    first = [called.attempt.post_id for called in ready if called.history is None]
    metrics.publishes_claimed([locked[one].due_at(drained.posts[one]) for one in first], now)
    done.follow_ups.add(drained.committed())
    done.follow_ups.publishes = [one for one in done.follow_ups.publishes if one.post_id not in claimed]
    contended = [Publish(post_id, revision) for post_id, revision in fenced.items() if post_id not in locked]
    follow_ups.snooze(SNOOZE, *contended)
    done.outcomes |= outcomes | dict.fromkeys((one.post_id for one in contended), "contended")
    done.follow_ups.add(follow_ups)
    return ready


@contextmanager
def _noting_unconfirmed(ready: list[Called], done: Published) -> Iterator[None]:
    """After any error in a claim its posts are not called for. Its COMMIT may have succeeded all the same."""
    try:
        yield
    except Exception:
        done.unconfirmed += ready
        raise


def _snooze(
    verdict: str, facts: PostFacts, post: Post, drained: Drained, follow_ups: FollowUps, *, now: datetime
) -> None:
    """Have a post come back that was not claimed now but will be soon."""
    message = Publish(facts.id, facts.schedule_revision)
    if verdict == "edits_first":
        follow_ups.edits_first.append(facts.id)
        follow_ups.snooze(SNOOZE, message)
    elif verdict == "not_due":
        write = drained.writes.get(facts.id)
        wait = (publish_rules.goes_at(facts, post) - now).total_seconds()
        # Seconds from now, not an instant: the clocks of worker and database may differ.
        if wait <= settings().horizon and not (write and write.enqueue):
            follow_ups.snooze(wait, message)


def _call(called: Called) -> Reply:
    """Call for a claim, unless it is so old (a frozen process) that another worker may have taken it, or its key is."""
    age, attempt = time.monotonic() - called.began, called.attempt
    if age > settings().claim_expiry / 2:
        return Reply(Outcome.NEVER_STARTED, message="its claim had become too old to begin")
    now = called.claimed_at + timedelta(seconds=age)
    refused = publish_rules.before_calling(attempt, called.history, now, limits())
    return refused or services.call(
        "publish", attempt.body, attempt.idempotency_key, attempt.try_number, called.claimed_at
    )
