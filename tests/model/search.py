"""Every state of the model within some steps, breadth first, so that no history shorter than the one found exists."""

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.domain.service_answers import Outcome
from tests.model.publishing import (
    ALL_ANSWERS,
    ANSWERS,
    ENDS,
    PROMISES,
    State,
    broken,
    first,
    same,
    steps,
    stuck,
)


@dataclass
class Found:
    """`broken`: the promise, `story`: the steps that lead to where it is broken. `whole`: no state lies deeper."""

    states: int = 0
    depth: int = 0
    whole: bool = False
    broken: str | None = None
    why: str | None = None
    story: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        found = f"{self.states:,} states, {self.depth} steps deep{', which is all' if self.whole else ''}"
        return found if self.broken is None else "\n  ".join([f"{found}: {self.broken}: {self.why or ''}", *self.story])


def search(
    depth: int, promises: Collection[str] = PROMISES, *, answers: tuple[Outcome, ...] = ANSWERS, holders: int = 2,
    start: State | None = None,
) -> Found:  # fmt: skip
    """Look at everything that can happen within `depth` steps, until one of these promises is broken."""
    with _no_garbage_collected():
        return _search(depth, promises, answers, holders, start)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """A search makes no cycles. To look for them in all states again and again was a quarter of its CPU."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _search(
    depth: int, promises: Collection[str], answers: tuple[Outcome, ...], holders: int, start: State | None
) -> Found:
    start = start or first()
    found = Found()
    came: dict[tuple[object, ...], tuple[tuple[object, ...], str] | None] = {same(start): None}
    rows: set[object] = set()
    settled: set[tuple[object, ...]] = set()
    edge = [(same(start), start)]
    for found.depth in range(1, depth + 1):
        beyond = []
        for place, state in edge:
            for label, after in steps(state, answers, holders):
                found.seen[label] += 1
                there = same(after)
                if there in came:
                    continue
                came[there] = place, label
                found.broken = next((promise for promise in broken(after) if promise in promises), None)
                if found.broken is None and ENDS in promises and there[0] not in rows:
                    rows.add(there[0])
                    why = stuck(after, answers, settled)
                    found.broken = ENDS if why else None
                    found.why = why
                if found.broken is not None:
                    found.story = _story(came, there)
                    found.states = len(came)
                    return found
                beyond.append((there, after))
        edge = beyond
        found.whole = not edge
        if found.whole:
            break
    found.states = len(came)
    return found


def _story(came: dict[tuple[object, ...], tuple[tuple[object, ...], str] | None], at: tuple[object, ...]) -> list[str]:
    story = []
    while (step := came[at]) is not None:
        at, label = step
        story.append(label)
    return story[::-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.search", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--holders", type=int, default=2, help="workers with a claim at once")
    parser.add_argument("--edits", type=int, default=2)
    parser.add_argument("--retries", type=int, default=2, help="by operators")
    given = parser.parse_args()
    began = time.monotonic()
    start = first(edits=given.edits, acts=given.retries)
    found = search(given.depth, answers=ALL_ANSWERS, holders=given.holders, start=start)
    print(f"{found} ({time.monotonic() - began:.0f} s)")
    for label, times in sorted(found.seen.items()):
        print(f"{times:12,}  {label}")
    return 0 if found.broken is None else 1


if __name__ == "__main__":
    sys.exit(main())
