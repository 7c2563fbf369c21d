"""What comes next after a call of a publisher or renderer: the table of docs/services.md as one function.

Pure: a reply, the earlier tries under the same key, the time and the limits in; a value out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.domain import failure_classes
from shared.domain.failure_classes import OUTCOME_UNKNOWN, PUBLISHER_UNAVAILABLE, FailureClass
from shared.domain.service_answers import KEY_TOO_OLD, WORKER_GONE, Outcome, Past, Reply

# Nine waits, each three times the one before up to a quarter of an hour, come to 43 minutes on average and 57 at most:
# the ten tries are spread over the hour that a publisher may be away, and the first of them come soon.
FIRST_WAIT = 2.0
FACTOR = 3
LONGEST_WAIT = 900.0
WITHIN = timedelta(hours=1)

# Seconds until a service is asked again that is at work and does not say for how long. No service is asked sooner than
# after SHORTEST_WAIT, nor sooner than after SHARE of the time for which it has asked to wait: an answer of
# "Retry-After: 0" must not make a loop.
POLL_AFTER = 10.0
SHORTEST_WAIT = 1.0
SHARE = 1 / 60
ASKS_TO_WAIT = frozenset({Outcome.PROCESSING, Outcome.NOT_NOW})
# Many posts get the same "Retry-After: 60". Their calls are spread over a tenth of it, and none comes before it.
SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a request is tried.

    `effect`: a call has an effect outside that must not happen twice. A publish has one. A render has none: a call of
    unknown outcome is then one more failure. `keeps_keys`: the seconds for which the publisher must remember a key.
    """

    failures: int = 10
    unknown: int = 3
    unavailable: str = PUBLISHER_UNAVAILABLE
    refused: str = "refused by the publisher"
    effect: bool = True
    keeps_keys: float = 86400.0


@dataclass(frozen=True, slots=True)
class Done:
    """The service did what it was asked for."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same request again at this time. `free`: the post may be edited meanwhile, for nothing can have been sent."""

    at: datetime
    free: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No more tries: the post fails with this reason, of this class. `message`: the last answer's words."""

    reason: str
    failure: FailureClass
    message: str | None = None


Step = Done | Retry | GiveUp


def what_next(reply: Reply, past: Past, *, now: datetime, jitter: float, limits: Limits = Limits()) -> Step:
    """What follows a call. `past`: the tries before it under the same key; `jitter`: 0 to 1, spreads the waits.

    No post is tried for ever. Failures are bounded by their number and by an hour, unknown outcomes by their number.
    "Not now" and "still at work" are bounded by an hour each, which begins with the first answer of that kind.
    """
    outcome = reply.outcome
    if outcome is Outcome.UNKNOWN and not limits.effect:
        outcome = Outcome.SERVER_ERROR
    known = past.with_try(outcome, now)
    if outcome is Outcome.DONE:
        return Done()
    if outcome is Outcome.REFUSED:
        # A refusal of a repeat says nothing about an earlier try: the service may refuse because that one went out.
        if limits.effect and known.maybe_sent:
            return _in_doubt(reply.message)
        return GiveUp(reply.message or limits.refused, _class_of(outcome, limits), reply.message)
    if _spent(outcome, known, now, limits):
        unsure = known.uncertain or known.accepted
        if limits.effect and unsure:
            return _in_doubt(reply.message)
        return GiveUp(limits.unavailable, _class_of(outcome, limits), reply.message)
    tries = known.waits if outcome is Outcome.NOT_NOW else known.failures + known.unknown
    since = known.busy_since if outcome is Outcome.NOT_NOW else known.working_since
    asking = now - since if since is not None and outcome in ASKS_TO_WAIT else timedelta()
    retry_at = now + wait(reply, tries, jitter, asking)
    return Retry(retry_at, free=outcome is Outcome.NEVER_STARTED and not known.maybe_sent)


def _in_doubt(message: str | None) -> GiveUp:
    return GiveUp(OUTCOME_UNKNOWN, FailureClass.UNKNOWN, message)


def _class_of(outcome: Outcome, limits: Limits) -> FailureClass:
    return failure_classes.after(outcome, render=not limits.effect)


def _spent(outcome: Outcome, known: Past, now: datetime, limits: Limits) -> bool:
    """Whether no try is left after one with this outcome. `known` includes it."""
    if outcome is Outcome.UNKNOWN:
        return known.unknown >= limits.unknown
    since = known.failing_since
    if outcome is Outcome.PROCESSING:
        since = known.working_since
    elif outcome is Outcome.NOT_NOW:
        since = known.busy_since
    elif known.failures >= limits.failures:
        return True
    return since is not None and now - since >= WITHIN


def wait(reply: Reply, tries: int, jitter: float, asking: timedelta = timedelta()) -> timedelta:
    """How long to wait before the next call: as the service asks, else by `backoff`; a quarter of an hour at most.

    `asking`: how long the service has asked to wait by now. The wait is a sixtieth of it at least: a service that
    answers "Retry-After: 0" for an hour is asked some 300 times, not 3,600 times. Where a service fails and names a
    time, the wait is the longer of that time and `backoff`.
    """
    asked = reply.retry_after
    if asked is None and reply.outcome is Outcome.PROCESSING:
        asked = POLL_AFTER
    spread = 1 + SPREAD * jitter
    backed_off = backoff(tries, jitter).total_seconds()
    named = backed_off if asked is None else max(asked, SHORTEST_WAIT) * spread
    least = asking.total_seconds() * SHARE * spread if reply.outcome in ASKS_TO_WAIT else backed_off
    return timedelta(seconds=min(max(named, least), LONGEST_WAIT))


def backoff(tries: int, jitter: float) -> timedelta:
    """The wait after so many tries: at most 2 s, 6 s, 18 s … 15 min. `jitter` (0 to 1) decides half of it."""
    most = min(FIRST_WAIT * FACTOR ** min(max(0, tries - 1), 16), LONGEST_WAIT)
    return timedelta(seconds=most / 2 + jitter * most / 2)


def before_retaking(past: Past, now: datetime, limits: Limits = Limits()) -> GiveUp | None:
    """GiveUp where an expired claim must not be taken once more; else None.

    Each worker that had the claim may have died in its call, and only here can those tries be counted. `past` includes
    the try without an outcome. And the key may have grown too old meanwhile: workers were stopped, or an operator put
    the post back days later.
    """
    if past.maybe_sent and past.key_too_old(now, limits.keeps_keys):
        return _in_doubt(KEY_TOO_OLD)
    return _in_doubt(WORKER_GONE) if past.unknown >= limits.unknown else None
