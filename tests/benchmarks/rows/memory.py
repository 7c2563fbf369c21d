"""Row 11: what API, workers and beat hold at rest, during a flood and after it."""

import time
from collections.abc import Sequence

from tests.benchmarks import parts, plots
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import REDRAFT
from tests.benchmarks.figures import Goal, Section
from tests.benchmarks.ground import WrongMeasureError
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Wrk
from tests.benchmarks.rows import TITLES

MIB = 2**20
CLIENTS = 64
# Two thirds of a flood come after pools, caches and prepared statements have reached their size.
SETTLED = 1 / 3
GROWTH = 1.05
REST = 15
EVERY = 5.0

Sample = tuple[float, dict[str, int]]


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    seconds = bench.options.flood_seconds
    with bench.ground.turn(bench.template()) as stage, REDRAFT.running(stage, bench.folder) as running:
        root = running.processes.all[0].pid
        at_rest = parts.memory(root)
        bench.say(f"a flood of {seconds:g} s from {CLIENTS} clients")
        ledger = Ledger(stage)
        generator = Wrk(running.url, clients=CLIENTS, seconds=seconds)
        samples: list[Sample] = []
        began = time.monotonic()
        try:
            while generator.running:
                samples.append((time.monotonic() - began, parts.memory(root)))
                time.sleep(EVERY)  # how often a sample is taken
            told = generator.result()
        finally:
            generator.close()
        told.must_be(200)
        applied = ledger.close(told, within=60)
        parts.quiet(within=REST)
        after = parts.memory(root)
    if len(samples) < 3:
        raise WrongMeasureError(f"a flood of {seconds:g} s is too short for a sample every {EVERY:g} s")
    bench.say(f"  {applied:,} edits")
    return [_section(bench, at_rest, samples, after, applied)]


def _section(
    bench: Bench, at_rest: dict[str, int], samples: Sequence[Sample], after: dict[str, int], applied: int
) -> Section:
    names = sorted(at_rest)
    settled = samples[int(len(samples) * SETTLED)][1]
    end = samples[-1][1]
    section = Section(11, TITLES[11])
    counted = [name for name in names if name in ("api", "beat") or name.startswith("worker")]
    for what, of in (("API", ["api"]), ("workers", [n for n in counted if n.startswith("worker")]), ("beat", ["beat"])):
        before, later = (sum(held.get(name, 0) for name in of) for held in (settled, end))
        goal = f"of {what} after a third of the flood, at its end (flat)"
        section.goals.append(Goal(goal, GROWTH * 100, later / before * 100, at_least=False, form="{} %"))
    section.header = ["MiB", "at rest", "after a third of the flood", "at its end", "at rest again"]
    for name in names:
        held = (at_rest, settled, end, after)
        section.rows.append([name, *(f"{one.get(name, 0) / MIB:.0f}" for one in held)])
    section.notes.append(
        f"A flood of {bench.options.flood_seconds / 60:.1f} minutes, {applied:,} edits. Shared pages are counted once "
        "where the kernel tells (Linux: PSS). The goal is flat; held to it is that the last two thirds of the flood "
        "add no more than a twentieth."
    )
    lines = {name: [(at, held.get(name, 0) / MIB) for at, held in samples] for name in counted}
    name = "memory.svg"
    drawn = plots.over_time(lines, "MiB", f"Memory during a flood from {CLIENTS} clients")
    (bench.plots / name).write_text(drawn, encoding="utf-8")
    section.pictures.append((name, "Memory over the flood"))
    return section
