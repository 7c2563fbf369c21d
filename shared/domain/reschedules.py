"""What a bulk job means for one post: the plan and its outcomes (docs/bulk.md).

Pure. A job freezes which posts it means into chunks; for each post of a chunk, under its lock, the worker asks
`decide` for a `Move` or a `Reason` against it. A dry run asks the same function about rows that it has not locked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Any, Final, NamedTuple

from shared.domain import lifecycle, times
from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.times import Duration

CHUNK: Final = 1000
"""Posts in one transaction. They are locked for some 30 ms; an edit that meets the lock comes back after 250 ms."""


class Outcome(StrEnum):
    """What became of one post of a job."""

    APPLIED = "applied"
    SKIPPED = "skipped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a post was not moved: the `reason` of its result. `WORDS` says it in a sentence."""

    NOT_FOUND = "not_found"
    POSTED = "already_posted"
    FAILED = "already_failed"
    BEING_PUBLISHED = "being_published"
    TIME_PAST = "time_past"
    BEYOND_TEN_YEARS = "beyond_ten_years"
    SKIPPED_BY_DST = "skipped_by_dst"
    EDIT_WAITING = "edit_waiting"
    CHANGED_SINCE = "changed_since"
    TOO_CLOSE = "too_close"

    @property
    def outcome(self) -> Outcome:
        """`failed` for an unknown post, which is an error of the request; `skipped` for every other reason."""
        return Outcome.FAILED if self is Reason.NOT_FOUND else Outcome.SKIPPED


WORDS: Final[Mapping[str, str]] = {
    Reason.NOT_FOUND: "there is no such post",
    Reason.POSTED: "it has been posted already",
    Reason.FAILED: "it has failed, and waits for nothing",
    Reason.BEING_PUBLISHED: "it is being published right now",
    Reason.TIME_PAST: "the new time has passed already",
    Reason.BEYOND_TEN_YEARS: "the new time is more than ten years away",
    Reason.SKIPPED_BY_DST: "the clocks go forward over the new time",
    Reason.EDIT_WAITING: "an edit that stopped its worker waits before this move",
    Reason.CHANGED_SINCE: "it was changed since",
    Reason.TOO_CLOSE: "it would be too near to another post of its account",
}


class ScheduleFacts(NamedTuple):
    """What a plan reads of a post's row. `status` and `claim` are the row's own strings; times aware, UTC."""

    id: str
    status: str
    claim: str | None
    timezone: str | None
    scheduled_time: datetime
    schedule_revision: int
    revision: int
    deleted: bool


def seen(post: PostFacts) -> ScheduleFacts:
    """The schedule facts of a post that queued edits have just changed."""
    return ScheduleFacts(
        post.id,
        post.status,
        post.claim,
        post.timezone,
        post.scheduled_time,
        post.schedule_revision,
        post.revision,
        post.deleted,
    )


class Move(NamedTuple):
    """The new time and zone of a post. If both are unchanged, only the audit row is written."""

    at: datetime
    timezone: str | None


@dataclass(frozen=True, slots=True)
class Shift:
    """Moves each post by the same duration."""

    by: Duration

    def stored(self) -> dict[str, Any]:
        return {"shift": str(self.by)}


@dataclass(frozen=True, slots=True)
class Spread:
    """Spreads posts evenly from `first` to `last`, in their present order. `count`: known once the posts are frozen."""

    first: datetime
    last: datetime
    timezone: str
    count: int | None = None

    def stored(self) -> dict[str, Any]:
        ends = {"from": times.format_instant(self.first), "to": times.format_instant(self.last)}
        return {"spread": ends | {"timezone": self.timezone, "count": self.count}}

    def at(self, place: int) -> datetime:
        """The new time of the post in that place: the arithmetic of `times.spread` for one post alone."""
        minutes = (self.last - self.first) // timedelta(minutes=1)
        return self.first + timedelta(minutes=minutes * place // max(1, (self.count or 1) - 1))


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """Moves each post to a time of its own: the items of a request."""

    def stored(self) -> dict[str, Any]:
        return {"items": True}


@dataclass(frozen=True, slots=True)
class Revert:
    """Moves each post back that `job_id` moved, if the post is still where that job put it."""

    job_id: str

    def stored(self) -> dict[str, Any]:
        return {"revert": self.job_id}


Plan = Shift | Spread | ItemPlan | Revert


def plan_of(stored: Mapping[str, Any]) -> Plan:
    """The plan whose `stored()` this is. Trusted: it was validated when it was accepted."""
    if "shift" in stored:
        return Shift(times.parse_duration(stored["shift"]) or Duration(0, 0))
    if "spread" in stored:
        ends = stored["spread"]
        return Spread(_instant(ends["from"]), _instant(ends["to"]), ends["timezone"], ends["count"])
    return Revert(stored["revert"]) if "revert" in stored else ItemPlan()


Aim = Callable[[int, ScheduleFacts], Move | Reason]
"""The target of one post, by its index in the chunk: the plan's arithmetic alone."""


def aiming(plan: Plan, aims: Sequence[Any] | None) -> Aim:
    """The plan for one chunk. `aims`, one for each of its posts, as the freeze stored them:

    shift nothing at all, spread a place or null, each [local, zone], revert [instant, zone, set instant, set zone].
    """
    match plan:
        case Shift(by):
            return lambda _, post: _shifted(post, by)
        case Spread():
            return lambda index, _: _placed(plan, (aims or ())[index])
        case ItemPlan():
            return lambda index, _: _listed(*(aims or ())[index])
        case Revert():
            return lambda index, post: _restored(post, *(aims or ())[index])


def _shifted(post: ScheduleFacts, by: Duration) -> Move | Reason:
    at, zone = post.scheduled_time, post.timezone
    try:
        step = _step(zone, at.toordinal(), by.days)
        moved = times.shift(at, zone, by) if step is None else at + step + timedelta(seconds=by.seconds)
    except times.SkippedByDst:
        return Reason.SKIPPED_BY_DST
    except OverflowError:
        return Reason.BEYOND_TEN_YEARS if by.days + by.seconds > 0 else Reason.TIME_PAST
    return Move(moved, zone)


@lru_cache(maxsize=1 << 15)
def _step(zone: str | None, day: int, days: int) -> timedelta | None:
    """How far each instant of one UTC day moves when its wall clock moves by `days`.

    None where a clock change lies in the day that is left or in the day that is reached: then each post is computed by
    itself. No zone changes its clock twice within a day, so equal offsets at both ends of a day mean no change. 330
    cached answers serve 100,000 posts of a month, at a tenth of the cost.
    """
    first = datetime.fromordinal(day).replace(tzinfo=UTC)
    last = first + timedelta(days=1, microseconds=-1)
    by = Duration(days, 0)
    try:
        ends = (first, last), (times.shift(first, zone, by), times.shift(last, zone, by))
    except times.SkippedByDst:
        return None
    if any(_offset(begin, zone) != _offset(end, zone) for begin, end in ends):
        return None
    return ends[1][0] - first


def _offset(instant: datetime, zone: str | None) -> timedelta:
    return times.to_local(instant, zone) - instant.replace(tzinfo=None)


def _placed(plan: Spread, place: int | None) -> Move | Reason:
    # The post did not wait when the job began, so the freeze gave it no place. It has been put back to waiting since.
    return Reason.CHANGED_SINCE if place is None else Move(plan.at(place), plan.timezone)


def _listed(local: str, zone: str) -> Move | Reason:
    try:
        return Move(times.to_instant(datetime.fromisoformat(local), zone), zone)
    except times.SkippedByDst:
        return Reason.SKIPPED_BY_DST


def _restored(post: ScheduleFacts, at: str, zone: str | None, set_at: str, set_zone: str | None) -> Move | Reason:
    if times.format_instant(post.scheduled_time) != set_at or post.timezone != set_zone:
        return Reason.CHANGED_SINCE
    return Move(_instant(at), zone)


def _instant(stored: str) -> datetime:
    """What `format_instant` wrote."""
    return datetime.fromisoformat(stored)


def decide(index: int, post: ScheduleFacts, aim: Aim, now: datetime) -> Move | Reason:
    """Move one post of a chunk, or say why not. `now`: the database's clock, read after the post was locked."""
    refused = _REFUSALS[post.status, post.claim, post.deleted]
    if refused is not None:
        return refused
    goal = aim(index, post)
    # Most times lie well within ten years. The exact rule, with leap days, is needed for the others only.
    if isinstance(goal, Reason) or now < goal.at < now + _SURELY_WITHIN:
        return goal
    if goal.at <= now:
        return Reason.TIME_PAST
    return goal if times.within_reach(goal.at, now) is None else Reason.BEYOND_TEN_YEARS


_SURELY_WITHIN: Final = timedelta(days=365 * (times.REACH_YEARS - 1))


def _refusal(status: Status, claim: ClaimKind | None, *, deleted: bool) -> Reason | None:
    """What `lifecycle.cannot_edit` says of such a post: the one rule, asked once for each kind of post there is."""
    post = PostFacts(
        "", "", status, claim, "", "", None, "", None, None, datetime.min.replace(tzinfo=UTC), False, None, 1, 1, 1,  # noqa: FBT003
        deleted,
    )  # fmt: skip
    refused = lifecycle.cannot_edit(post)
    if refused is None:
        return None
    if refused.code == "not_found":
        return Reason.NOT_FOUND
    return _BY_LABEL[refused.details[0].message]


_BY_LABEL: Final = {
    Status.POSTED.value: Reason.POSTED,
    Status.FAILED.value: Reason.FAILED,
    lifecycle.BEING_PUBLISHED: Reason.BEING_PUBLISHED,
}
_REFUSALS: Final[Mapping[tuple[str, str | None, bool], Reason | None]] = {
    (status, claim, deleted): _refusal(status, claim, deleted=deleted)
    for status, claim, deleted in product(Status, (None, *ClaimKind), (False, True))
}
