"""Decides who gets the next place where workspaces share a bounded number of places. Pure.

An owner is the id of a workspace or of a key, or "" where neither is known. docs/fairness.md lists the places.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


def admits(capacity: int, *, taken: int, owned: int, owners: int) -> bool:
    """Whether an owner that has `owned` of the `taken` places may have one more. `owners` have a place now.

    The first three quarters of all places go to the first comers. The last quarter (at least one place of two) is for
    owners that have few: an owner may take one of its places while it has less than an even part of that quarter. So
    neither one flood nor several together take all places.
    """
    kept = kept_of(capacity)
    if taken < capacity - kept:
        return True
    return taken < capacity and owned < max(1, kept // max(1, owners + (owned == 0)))


def kept_of(capacity: int) -> int:
    """How many of `capacity` places are kept for owners that have few."""
    return min(capacity - 1, -(-capacity // 4))


class Shares:
    """Places of one kind, and how many each owner has."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._of: dict[str, int] = {}
        self._taken = 0
        self._free_to_all = capacity - kept_of(capacity)

    def __len__(self) -> int:
        """How many places are taken."""
        return self._taken

    def of(self, owner: str) -> int:
        """How many places this owner has."""
        return self._of.get(owner, 0)

    @property
    def owners(self) -> int:
        """How many owners have a place."""
        return len(self._of)

    def admits(self, owner: str) -> bool:
        """Whether this owner may take one more place."""
        if self._taken < self._free_to_all:
            return True
        return admits(self.capacity, taken=self._taken, owned=self.of(owner), owners=self.owners)

    def take(self, owner: str, count: int = 1) -> None:
        """Take places. Ask `admits` before; a caller that cannot wait may take some over the bound."""
        self._taken += count
        self._of[owner] = self._of.get(owner, 0) + count

    @contextmanager
    def taken(self, owner: str, count: int = 1) -> Iterator[None]:
        """Take places for as long as the block runs."""
        self.take(owner, count)
        try:
            yield
        finally:
            self.give_back(owner, count)

    def give_back(self, owner: str, count: int = 1) -> None:
        """Give places back."""
        self._taken -= count
        left = self._of[owner] - count
        if left:
            self._of[owner] = left
        else:
            del self._of[owner]


def everyone(_: str) -> bool:
    """Admits every owner."""
    return True


class Lines(Generic[T]):
    """Waiting items, in a line for each owner. Lines are served in turn; within a line, first come, first served."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def owners(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def add(self, owner: str, one: T) -> None:
        """Add an item to the end of its owner's line."""
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
        line.append(one)
        self._count += 1

    def take(self, admits: Callable[[str], bool] = everyone) -> tuple[str, T] | None:
        """The first item of the next line whose owner is admitted, with its owner. That line comes last then."""
        for owner, line in self._lines.items():
            if admits(owner):
                one = line.popleft()
                self._count -= 1
                if line:
                    self._lines.move_to_end(owner)
                else:
                    del self._lines[owner]
                return owner, one
        return None

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop the items that are not wanted any more."""
        for owner, line in list(self._lines.items()):
            kept = deque(one for one in line if wanted(one))
            self._count -= len(line) - len(kept)
            if kept:
                self._lines[owner] = kept
            else:
                del self._lines[owner]

    def clear(self) -> None:
        self._lines.clear()
        self._count = 0


class Active:
    """Which owners sent a request within the last `seconds`. Callers give the time of a clock that never goes back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[str, float] = OrderedDict()

    def seen(self, owner: str, now: float) -> None:
        """This owner sends a request."""
        self._seen[owner] = now
        self._seen.move_to_end(owner)
        while next(iter(self._seen.values())) < now - self._seconds:
            self._seen.popitem(last=False)

    def several(self, now: float) -> bool:
        """Whether more than one owner sent a request within that time."""
        return sum(at >= now - self._seconds for at in islice(reversed(self._seen.values()), 2)) > 1


class Pace:
    """How long to hold back a refusal, so that refusing a flood costs next to nothing. Pure.

    `a_second` refusals of an owner are answered at once, and then `a_second` each second. None is held back for longer
    than `most` seconds. Refusals beyond that get different times between half of `most` and `most`: thousands that were
    refused at once must not come back at once. Callers give the time, in seconds of a clock that never goes back.
    """

    def __init__(self, a_second: float, most: float) -> None:
        self._step = 1 / a_second
        self._most = most
        self._next: dict[str, float] = {}
        self._spread = 0.0

    def __len__(self) -> int:
        """How many owners were refused recently."""
        return len(self._next)

    def hold(self, owner: str, now: float) -> float:
        """Seconds to hold this refusal back; 0 for none."""
        if len(self._next) > 1000:
            self._next = {name: at for name, at in self._next.items() if at > now}
        at = max(self._next.get(owner, 0.0), now)
        if at - now >= 1.0 + self._most:
            # Steps of the golden section spread evenly, however many there are.
            self._spread = (self._spread + 0.618034) % 1.0
            return self._most * (1.0 - self._spread / 2)
        self._next[owner] = at + self._step
        return max(0.0, at - now - 1.0)
