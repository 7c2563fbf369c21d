"""When to try a call again, and when to give up (SPEC 6). Pure: outcomes and counts in, a value out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

# Nine waits, each three times the one before up to a quarter of an hour, come to 43 minutes on average and 57 at most:
# the ten tries are spread over the hour that a publisher may be away, and the first of them come soon.
FIRST_WAIT = 2.0
FACTOR = 3
LONGEST_WAIT = 900.0
WITHIN = timedelta(hours=1)

PUBLISHER_UNAVAILABLE = "publisher_unavailable"
RENDERER_UNAVAILABLE = "renderer_unavailable"
OUTCOME_UNKNOWN = "publish_outcome_unknown"


class Outcome(StrEnum):
    """How one call of an outside service ended."""

    DONE = "done"  # 2xx
    REFUSED = "refused"  # 4xx: the request itself is at fault
    NEVER_STARTED = "never_started"  # connection refused, name unknown: nothing can have been sent
    SERVER_ERROR = "server_error"  # 5xx
    UNKNOWN = "unknown"  # timed out, cut off, or its holder died: it may have happened


@dataclass(frozen=True, slots=True)
class Again:
    """Try again at this time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The tries are spent: the post fails with this reason."""

    reason: str


def backoff(tries: int, luck: float) -> timedelta:
    """The wait after so many tries: at most 2 s, 6 s, 18 s … 15 min; half of it by `luck` (0 to 1), to spread them."""
    most = min(FIRST_WAIT * FACTOR ** min(max(0, tries - 1), 16), LONGEST_WAIT)
    return timedelta(seconds=most / 2 + luck * most / 2)


def after_failure(
    outcome: Outcome,
    *,
    never_started: int,
    unknown: int,
    first_at: datetime,
    now: datetime,
    luck: float,
    most_never_started: int = 10,
    most_unknown: int = 3,
    unavailable: str = PUBLISHER_UNAVAILABLE,
) -> Again | GiveUp:
    """What follows a call that neither succeeded nor was refused. The counts include it.

    Never started and 5xx share one count: 10 tries within an hour. Unknown outcomes have another: 3. The reason says
    which was spent, and an unknown outcome outweighs: whoever reads it must look whether the post is out there.
    """
    if outcome is Outcome.UNKNOWN and unknown >= most_unknown:
        return GiveUp(OUTCOME_UNKNOWN)
    if outcome is not Outcome.UNKNOWN and (never_started >= most_never_started or now - first_at >= WITHIN):
        return GiveUp(OUTCOME_UNKNOWN if unknown else unavailable)
    return Again(now + backoff(never_started + unknown, luck))


def before_retaking(*, unknown: int, most_unknown: int = 3) -> GiveUp | None:
    """Whether an expired claim may be taken once more: its holders may all have died in the call, and nobody else
    would ever count them. `unknown` includes the try that ended without a word.
    """
    return GiveUp(OUTCOME_UNKNOWN) if unknown >= most_unknown else None
