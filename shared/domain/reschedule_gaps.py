"""How near to each other a bulk job may put the posts of one account (docs/bulk.md). Pure.

The worker asks `keep_apart` about all posts of an account that it has locked, and about the account's other posts. A
dry run asks the same function about rows that it has not locked.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple

from shared.domain import fields, times
from shared.domain.times import Duration

MOST_OF_AN_ACCOUNT: Final = 10_000
"""Posts of one account in a job with a gap: they are locked and decided together, in one transaction."""


TOO_MANY: Final = (
    f"A job with minGap takes at most {MOST_OF_AN_ACCOUNT:,} posts of one account; "
    "choose fewer by scheduledFrom and scheduledTo, and start another job for the rest"
)


def _rule(value: object) -> Duration:
    found = fields.duration(value)
    if gap_of(found) <= timedelta(0):
        raise fields.fault("invalid_request", f"must be longer than nothing: {times.DURATION_RULE}")
    return found


MinGap = Annotated[
    Duration,
    fields.Ruled(
        _rule,
        # No length of nothing: one digit at least is no zero.
        pattern=fields.DURATION_PATTERN.replace("[+-]", r"\+").replace("^", "^(?=.*[1-9])", 1),
        description="a post that would come nearer than this to another waiting post of its account is skipped; a day "
        "is 24 hours",
        examples=["PT30M"],
    ),
]
"""The field `minGap` of a request."""


class Caution(StrEnum):
    """What may be wrong with a post that was moved: the `warning` of its result."""

    SAME_MINUTE = "same_minute"


class Mover(NamedTuple):
    """A post that is to be moved from one instant to another. Times aware, UTC."""

    id: str
    at: datetime
    goal: datetime


class Apart(NamedTuple):
    """Movers that may not move. `too_close` stay for good; `undecided` wait, because a post beside their goal does."""

    too_close: frozenset[str]
    undecided: frozenset[str]


def stored(plan: Mapping[str, Any], gap: Duration | None) -> dict[str, Any]:
    """How a job's row keeps its plan and its gap. Code of before that knows no gap fails at it, and moves nothing."""
    return dict(plan) if gap is None else {_APART: {**plan, _GAP: str(gap)}}


def split(plan: Mapping[str, Any]) -> tuple[dict[str, Any], Duration | None]:
    """The plan and the gap that `stored` put together."""
    if _APART not in plan:
        return dict(plan), None
    inner = dict(plan[_APART])
    return inner, times.parse_duration(inner.pop(_GAP))


_APART: Final = "apart"
_GAP: Final = "minGap"


def gap_of(duration: Duration) -> timedelta:
    """The gap that a duration means: its days have 24 hours."""
    return timedelta(days=duration.days, seconds=duration.seconds)


def keep_apart(
    movers: Iterable[Mover], taken: Iterable[datetime], undecided: Iterable[datetime], gap: timedelta
) -> Apart:
    """Which of an account's movers may not move, so that none comes nearer than `gap` to another post.

    `taken`: where the account's posts stand that do not move now. `undecided`: where posts stand that may move later.

    A mover is too close if its goal is nearer than `gap` to a taken place. Of two movers whose goals are too near, the
    one with the later goal is too close, or the one with the greater id. A mover that is too close stays, so its own
    place is taken too. Movers near an undecided place wait, and their own places are undecided too.
    """
    return _Account(movers, gap).decided(taken, undecided)


class _Account:
    """The movers in the order of their goals. A mover that is out is passed over in constant time, whatever the gap."""

    def __init__(self, movers: Iterable[Mover], gap: timedelta) -> None:
        self._movers = sorted(movers, key=lambda mover: (mover.goal, mover.id))
        self._goals = [_microseconds(mover.goal) for mover in self._movers]
        self._gap = gap // _MICROSECOND
        # From each mover to the next one that is still in.
        self._next = list(range(len(self._movers) + 1))
        self._too_close: set[str] = set()
        self._undecided: set[str] = set()

    def decided(self, taken: Iterable[datetime], undecided: Iterable[datetime]) -> Apart:
        self._push_out(map(_microseconds, taken), self._too_close)
        # Before the movers are compared with each other: one that waits keeps no other from its goal.
        self._push_out(map(_microseconds, undecided), self._undecided)
        kept: list[int] = []
        number = self._first(0)
        while number < len(self._movers):
            while kept and not self._is_in(kept[-1]):
                kept.pop()
            if kept and self._goals[number] - self._goals[kept[-1]] < self._gap:
                self._take_out(number, self._too_close)
                self._push_out([_microseconds(self._movers[number].at)], self._too_close)
            else:
                kept.append(number)
            number = self._first(number + 1)
        return Apart(frozenset(self._too_close), frozenset(self._undecided))

    def _push_out(self, places: Iterable[int], into: set[str]) -> None:
        """Take out each mover whose goal is too near to one of the places; then those near the places of these."""
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            number = self._first(bisect_right(self._goals, place - self._gap))
            end = bisect_left(self._goals, place + self._gap)
            while number < end:
                self._take_out(number, into)
                waiting.append(_microseconds(self._movers[number].at))
                number = self._first(number + 1)

    def _take_out(self, number: int, into: set[str]) -> None:
        into.add(self._movers[number].id)
        self._next[number] = number + 1

    def _is_in(self, number: int) -> bool:
        return self._next[number] == number

    def _first(self, number: int) -> int:
        """The first mover from that one on that is still in."""
        found = number
        while self._next[found] != found:
            found = self._next[found]
        while self._next[number] != found:
            self._next[number], number = found, self._next[number]
        return found


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _microseconds(at: datetime) -> int:
    """Since 1970. As a number it has no first and no last day."""
    return (at - _EPOCH) // _MICROSECOND


def windows(goals: Iterable[datetime], gap: timedelta) -> list[tuple[datetime, datetime]]:
    """The times nearer than `gap` to one of the goals, as few spans from an instant to an instant, in order."""
    found: list[tuple[datetime, datetime]] = []
    for goal in sorted(goals):
        begin, end = goal - gap, goal + gap
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


class Placed(NamedTuple):
    """A post that waits, its account, and its time at the end of a job."""

    id: str
    account_id: str
    at: datetime


def sharing_a_minute(posts: Sequence[Placed], moved: Collection[str]) -> set[str]:
    """Those of the `moved` posts that go out in the same minute as another post of their account.

    The statement that warns of them (shared/store/reschedule_warnings.py) is held against this one.
    """
    minutes = Counter((post.account_id, _minute(post.at)) for post in posts)
    return {post.id for post in posts if post.id in moved and minutes[post.account_id, _minute(post.at)] > 1}


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
