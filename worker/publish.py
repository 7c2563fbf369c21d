"""Publish: claim, call, finish (SPEC 6). The claim drains the queue first: no accepted edit comes too late."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import Outcome, Reply
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import posts as posts_store
from shared.store import schedule as schedule_store
from shared.store.claims import AttemptResult, Finish, NewClaim
from shared.store.db import transaction
from shared.telemetry import metrics
from worker import publish_rules
from worker.apply import Drained, apply_edits, drain
from worker.attempts import Attempts
from worker.outbound import services
from worker.outbound.call_pool import CallPool, Completed, InFlight, transactions
from worker.published import Called, Published, finish, limits, write_finishes

# A task that finds no room for its calls ends; a post that is overdue is rung for again (SPEC 6).
PATIENCE = 10.0
LOOK_AGAIN = 0.05


def publish(pairs: Sequence[tuple[str, int]], calls: CallPool, ring: Callable[[Published], object]) -> Published:
    """Publish posts that are due: claim as many together as there is room to call for, call, finish as answers come.

    `ring` is called below commits, with what must be rung.
    """
    done, flight = Published(), InFlight[Called](calls)

    def tell() -> None:
        ring(done)
        done.forget_rung()

    rest = _compare_fences(pairs, done)
    held: list[Completed[Called]] = []
    try:
        while rest:
            busy = bool(flight.up or held)
            room = calls.take(len(rest), LOOK_AGAIN if busy else PATIENCE)
            if not room and not busy:
                done.outcomes |= dict.fromkeys((post_id for post_id, _ in rest), "busy")
                break
            _claim_and_call(dict(rest[:room]), room, calls, flight, done)
            rest = rest[room:]
            tell()
            held = finish([*held, *flight.landed(0 if room else LOOK_AGAIN)], done)
            tell()
    finally:
        # What is being called is finished, whatever became of the rest.
        held += _not_called(done.unsure)
        while flight.up or held:
            held = finish([*held, *flight.landed(LOOK_AGAIN if held else None)], done)
            tell()
    return done


def _compare_fences(pairs: Sequence[tuple[str, int]], done: Published) -> list[tuple[str, int]]:
    """The posts whose schedule revision is the message's. Compared before any draining: afterwards the row decides,
    so that a stream of time edits cannot make every message stale in turn (SPEC 3.7).
    """
    with transactions, transaction() as tx:
        fences = schedule_store.fences(tx, [post_id for post_id, _ in pairs])
    fenced: dict[str, int] = {}
    for post_id, schedule_revision in pairs:
        fence = fences.get(post_id)
        if fence is None or fence.deleted:
            done.outcomes[post_id] = "gone"
        elif fence.status != Status.GENERATED:
            # Should an edit that waits make it ready, its own apply rings for it.
            done.outcomes[post_id] = fence.status
        elif fence.schedule_revision == schedule_revision:
            fenced[post_id] = schedule_revision
        elif post_id not in fenced:
            done.outcomes[post_id] = "superseded"
    queued = [post_id for post_id in fenced if fences[post_id].queued]
    if queued:
        done.applied = apply_edits(queued)
    return list(fenced.items())


def _claim_and_call(
    fenced: Mapping[str, int], room: int, calls: CallPool, flight: InFlight[Called], done: Published
) -> None:
    """Claim these posts, for whose calls `room` was taken, and call for those that were claimed."""
    ready: list[Called] = []
    try:
        ready = claim(fenced, done) if fenced else []
    finally:
        calls.give_back(room - len(ready))
    for called in ready:
        flight.launch(called, _call)


def _not_called(unsure: Sequence[Called]) -> list[Completed[Called]]:
    """Claims whose COMMIT may have come through although its answer did not. Only their living holder knows that it
    never called for them, so it says so in their rows: left alone, each would count as a try whose outcome is unknown.
    """
    reply = Reply(Outcome.NEVER_STARTED, message="the commit of its claim was not confirmed: no call was made")
    return [Completed(called, reply, time.monotonic()) for called in unsure]


def claim(fenced: Mapping[str, int], done: Published) -> list[Called]:
    """Claim what is due of these posts, in one transaction: lock, read the queue, apply what is left, then decide.

    `fenced`: post -> the schedule revision that its message carried.
    """
    began, config = time.monotonic(), settings()
    ready: list[Called] = []
    told = Published()
    with _uncalled(ready, done), transactions, Attempts() as attempts, transaction() as tx:
        locked = posts_store.lock_posts(tx, fenced, "skip")
        open_posts = {i: post for i, post in locked.items() if post.facts.claim is not ClaimKind.PUBLISH}
        drained = drain(tx, open_posts, attempts)
        behind = {*drained.more, *drained.tried, *drained.held}
        past = claims_store.histories(tx, locked)
        now = posts_store.clock(tx)
        claims: list[NewClaim] = []
        lost: list[AttemptResult] = []
        spent: list[Finish] = []
        for post_id, post in locked.items():
            facts, history = drained.posts.get(post_id, post.facts), past.get(post_id)
            taken = (
                publish_rules.Taken("edits_first")
                if post_id in behind
                else publish_rules.take(facts, post, history, now, limits())
            )
            if taken.lost is not None:
                lost.append(taken.lost)
            if taken.gives_up is not None:
                spent.append(taken.gives_up)
            if (attempt := taken.attempt) is not None:
                claims.append(NewClaim(post_id, "publish", attempt.claim_token, facts.status, post.claim_token))
                ready.append(Called(attempt, history, now, began))
            told.outcomes[post_id] = taken.verdict
            _come_back(facts, post, drained, now, told)
        claims_store.finish_attempts(tx, lost)
        told.told = write_finishes(tx, spent, locked)
        claims_store.take_claims(tx, claims, config.claim_expiry)
        claims_store.record_attempts(tx, [called.attempt for called in ready])
        if told.edits:
            schedule_store.mark_again(tx, told.edits)
    claimed = {called.attempt.post_id for called in ready}
    first = [called.attempt.post_id for called in ready if called.history is None]
    metrics.publishes_claimed([drained.posts[post_id].scheduled_time for post_id in first], now)
    done.applied.take(drained)
    done.applied.publishes = [due for due in done.applied.publishes if due[0] not in claimed]
    held = [(post_id, revision) for post_id, revision in fenced.items() if post_id not in locked]
    done.outcomes |= told.outcomes | dict.fromkeys((post_id for post_id, _ in held), "held")
    done.again += told.again + held
    done.edits += told.edits
    done.early += told.early
    done.told += told.told
    return ready


@contextmanager
def _uncalled(ready: list[Called], done: Published) -> Iterator[None]:
    """Whatever went wrong in a claim, its posts are not called for. Its COMMIT may have come through all the same."""
    try:
        yield
    except Exception:
        done.unsure += ready
        raise


def _come_back(facts: PostFacts, post: Post, drained: Drained, now: datetime, told: Published) -> None:
    """What must be rung for a post that was not claimed now but will be soon."""
    verdict = told.outcomes[facts.id]
    if verdict == "edits_first":
        told.edits.append(facts.id)
        told.again.append((facts.id, facts.schedule_revision))
    elif verdict == "early":
        write = drained.writes.get(facts.id)
        wait = (publish_rules.goes_at(facts, post) - now).total_seconds()
        # Counted in seconds from now, not as a time: the worker's clock may be another one than the database's.
        if wait <= settings().horizon and not (write and write.enqueue):
            told.early.append((facts.id, facts.schedule_revision, wait))


def _call(called: Called) -> Reply:
    """Call for a claim, unless so much time has passed (a frozen process) that it may not be ours any more."""
    if time.monotonic() - called.began > settings().claim_expiry / 2:
        return Reply(Outcome.NEVER_STARTED, message="its claim had become too old to begin")
    attempt = called.attempt
    return services.call("publish", attempt.body, attempt.idempotency_key, attempt.try_number, called.claimed_at)
