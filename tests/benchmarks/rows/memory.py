"""Row 11: what API, workers and beat hold at rest, during a flood and after it; with usual inputs, then the largest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.benchmarks import parts, plots
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import REDRAFT
from tests.benchmarks.figures import Goal, Section
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Wrk
from tests.benchmarks.rows import TITLES

MIB = 2**20
CLIENTS = 64
LARGE_POSTS = 1_000
# Two thirds of a flood come after pools, caches and prepared statements have reached their size.
SETTLED = 1 / 3
GROWTH = 1.05
REST = 15
EVERY = 5.0

Sample = tuple[float, dict[str, int]]


@dataclass
class Flood:
    """What one flood did to the memory of each part, in bytes."""

    seconds: float
    at_rest: dict[str, int]
    samples: Sequence[Sample]
    after: dict[str, int]
    edits: int

    @property
    def settled(self) -> dict[str, int]:
        """Memory after the first part of the flood, in which pools and caches reach their size."""
        return self.samples[int(len(self.samples) * SETTLED)][1]

    @property
    def end(self) -> dict[str, int]:
        """Memory at the flood's last sample."""
        return self.samples[-1][1]


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    seconds = bench.options.flood_seconds
    with bench.ground.turn(bench.template()) as stage, REDRAFT.running(stage, bench.folder) as running:
        root = running.processes.all[0].pid
        usual = _flood(bench, stage, root, seconds, partial(Wrk, running.url, clients=CLIENTS))
        # Each is an edit of 72 kB: a fifth of the time makes more bytes than the other flood.
        largest = partial(Wrk, running.url, clients=CLIENTS, posts=LARGE_POSTS, large=True)
        large = _flood(bench, stage, root, seconds / 5, largest)
    return [_section(bench, usual, large)]


def _flood(bench: Bench, stage: Stage, root: int, seconds: float, start: Callable[..., Wrk]) -> Flood:
    at_rest = parts.memory(root)
    bench.say(f"a flood of {seconds:g} s from {CLIENTS} clients")
    ledger = Ledger(stage)
    samples: list[Sample] = []
    began = time.monotonic()
    generator = start(seconds=seconds)
    try:
        while generator.running:
            samples.append((time.monotonic() - began, parts.memory(root)))
            time.sleep(min(EVERY, seconds / 12))  # how often a sample is taken
        told = generator.result()
    finally:
        generator.close()
    told.must_be(200)
    applied = ledger.close(told, within=60)
    parts.quiet(within=REST)
    if len(samples) < 3:
        raise WrongMeasureError(f"a flood of {seconds:g} s is too short for three samples")
    bench.say(f"  {applied:,} edits")
    return Flood(seconds, at_rest, samples, parts.memory(root), applied)


def _section(bench: Bench, usual: Flood, large: Flood) -> Section:
    section = Section(11, TITLES[11])
    names = sorted(usual.at_rest)
    counted = [name for name in names if name in ("api", "beat") or name.startswith("worker")]
    for flood, inputs in ((usual, ""), (large, " of the largest inputs")):
        workers = [name for name in counted if name.startswith("worker")]
        for what, of in (("API", ["api"]), ("workers", workers), ("beat", ["beat"])):
            before, later = (sum(held.get(name, 0) for name in of) for held in (flood.settled, flood.end))
            goal = f"of {what} after a third of the flood{inputs}, at its end (flat)"
            section.goals.append(Goal(goal, GROWTH * 100, later / before * 100, at_least=False, form="{} %"))
    section.header = ["MiB", "at rest", "after a third of the flood", "at its end", "at rest again",
                      "largest inputs: after a third", "at its end", "at rest again"]  # fmt: skip
    for name in names:
        held = [usual.at_rest]
        for flood in (usual, large):
            held += [flood.settled, flood.end, flood.after]
        section.rows.append([name, *(f"{one.get(name, 0) / MIB:.0f}" for one in held)])
    section.notes.append(
        f"A flood of {usual.seconds / 60:.1f} minutes, {usual.edits:,} edits; then one of {large.seconds / 60:.1f} "
        f"minutes with the largest edit there is, 35 URLs of 2,000 characters: {large.edits:,} edits. Shared pages are "
        "counted once where the kernel tells (Linux: PSS). The goal is flat; held to it is that the last two thirds of "
        "a flood add no more than a twentieth."
    )
    lines = {name: [(at, held.get(name, 0) / MIB) for at, held in usual.samples] for name in counted}
    name = "memory.svg"
    drawn = plots.over_time(lines, "MiB", f"Memory during a flood from {CLIENTS} clients")
    (bench.plots / name).write_text(drawn, encoding="utf-8")
    section.pictures.append((name, "Memory over the flood"))
    return section
