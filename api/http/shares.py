"""Who may have the next place, where workspaces share a bounded number of them. Pure.

An owner is a workspace's id in most places, a key's or "" (nobody known) in others. docs/fairness.md says which places
there are, and how many.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


def admits(capacity: int, *, taken: int, owned: int, owners: int) -> bool:
    """Whether an owner that holds `held` of the `taken` places may have one more.

    The first three quarters of all places go to the first comers. The last quarter (one place at least, where there are
    two) is for owners that hold little: there an owner may have a place while it holds less than an even part of that
    quarter. So neither one flood nor several together take it. `owners` hold a place, this one included or not.
    """
    kept = kept_of(capacity)
    if taken < capacity - kept:
        return True
    return taken < capacity and owned < max(1, kept // max(1, owners + (owned == 0)))


def kept_of(capacity: int) -> int:
    """How many of so many places are kept for owners that hold little."""
    return min(capacity - 1, -(-capacity // 4))


class Shares:
    """Places of one kind, and who holds them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._of: dict[str, int] = {}
        self._taken = 0
        self._free_to_all = capacity - kept_of(capacity)

    def __len__(self) -> int:
        """How many places are taken."""
        return self._taken

    def of(self, owner: str) -> int:
        """How many of them this owner holds."""
        return self._of.get(owner, 0)

    @property
    def owners(self) -> int:
        """How many owners hold a place."""
        return len(self._of)

    def admits(self, owner: str) -> bool:
        """Whether this owner may take one more place."""
        if self._taken < self._free_to_all:
            return True
        return admits(self.capacity, taken=self._taken, owned=self.of(owner), owners=self.owners)

    def take(self, owner: str) -> None:
        """Take a place. Whoever has asked `admits` before keeps the rule; what must go on may go over it."""
        self._taken += 1
        self._of[owner] = self._of.get(owner, 0) + 1

    def give_back(self, owner: str) -> None:
        """Give a place back."""
        self._taken -= 1
        left = self._of[owner] - 1
        if left:
            self._of[owner] = left
        else:
            del self._of[owner]


def anybody(_: str) -> bool:
    """Everybody is admitted."""
    return True


class Lines(Generic[T]):
    """What waits, in a line for each owner. The lines are served in turn; within a line, first come, first served."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        """All that waits, line by line."""
        return (one for line in self._lines.values() for one in line)

    @property
    def owners(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def add(self, owner: str, one: T) -> None:
        """To the end of its owner's line."""
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
        line.append(one)
        self._count += 1

    def take(self, admits: Callable[[str], bool] = anybody) -> tuple[str, T] | None:
        """The first of the next line whose owner is admitted, and its owner. That line then has its turn last."""
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
        """Drop what is not wanted any more."""
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
    """Which owners asked lately. Pure: the time comes in, in seconds of a clock that never goes back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[str, float] = OrderedDict()

    def seen(self, owner: str, now: float) -> None:
        """This owner asks for something."""
        self._seen[owner] = now
        self._seen.move_to_end(owner)
        while next(iter(self._seen.values())) < now - self._seconds:
            self._seen.popitem(last=False)

    def several(self, now: float) -> bool:
        """Whether more than one owner has asked lately."""
        return sum(at >= now - self._seconds for at in islice(reversed(self._seen.values()), 2)) > 1


class Pace:
    """How long to hold back the answer to a request that is refused, so that refusing a flood costs next to nothing.

    An owner's first refusals are answered at once, `a_second` of them; more are answered `a_second` each second, and
    none is held back longer than `most` seconds. Of those that would be, each is held back for another time, from half
    of that on: thousands that were refused in one moment are not to come back in one moment. Pure: the time comes in,
    in seconds of a clock that never goes back.
    """

    def __init__(self, a_second: float, most: float) -> None:
        self._step = 1 / a_second
        self._most = most
        self._next: dict[str, float] = {}
        self._spread = 0.0

    def __len__(self) -> int:
        """How many owners were refused something lately."""
        return len(self._next)

    def hold(self, owner: str, now: float) -> float:
        """Seconds to hold this refusal back; 0 for at once."""
        if len(self._next) > 1000:
            self._next = {name: at for name, at in self._next.items() if at > now}
        at = max(self._next.get(owner, 0.0), now)
        if at - now >= 1.0 + self._most:
            # Steps of the golden section never come near each other.
            self._spread = (self._spread + 0.618034) % 1.0
            return self._most * (1.0 - self._spread / 2)
        self._next[owner] = at + self._step
        return max(0.0, at - now - 1.0)
