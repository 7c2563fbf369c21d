"""Row 14: many edits in one request, against one PATCH after another, on the same stack in the same turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks import contenders, load
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Goal, Section, number
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Load
from tests.benchmarks.parts import Busy
from tests.benchmarks.rows import TITLES

REDRAFT = next(one for one in contenders.ALL if one.key == "redraft")
MANY = 100
"""Edits in one request."""
PROCESSES = ("api", "worker", "postgres", "valkey", "wrk")


@dataclass(frozen=True)
class Way:
    """A way to send edits: so many clients, and so many edits in a request; 0 is PATCH."""

    name: str
    clients: int
    many: int


PATCH = Way("PATCH, 64 clients", 64, 0)
TOGETHER = Way(f"POST /v1/edits, {MANY} a request, 16 clients", 16, MANY)
ALONE = Way(f"POST /v1/edits, {MANY} a request, 1 client", 1, MANY)


@dataclass
class Seen:
    """The loads of one way, and the CPU seconds of each part in each of them."""

    loads: list[Load] = field(default_factory=list)
    spent: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> Figure:
        """Edits a second."""
        return Figure.of((one.edits / one.seconds for one in self.loads), "/s")

    def cost(self) -> float:
        """CPU milliseconds an edit, of all that runs but the generator."""
        return Figure.of(
            1000 * (sum(spent.values()) - spent.get("wrk", 0.0)) / one.edits
            for spent, one in zip(self.spent, self.loads, strict=True)
        ).median

    def cores(self, part: str) -> str:
        used = (
            sum(seconds for name, seconds in spent.items() if name.split(" ")[0] == part) / one.seconds
            for spent, one in zip(self.spent, self.loads, strict=True)
        )
        return number(Figure.of(used).median)


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    assert list(numbers) == [14]
    seen = {way: Seen() for way in (PATCH, TOGETHER, ALONE)}
    template = bench.template()
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}")
        with bench.ground.turn(template) as stage, REDRAFT.running(stage, bench.folder) as running:
            for way, found in seen.items():
                # The pages of the table are warm for neither of them otherwise.
                warm = Ledger(stage)
                warm.close(_sent(running.url, way, bench.options.warm_up))
                ledger, busy = Ledger(stage), Busy()
                told = _sent(running.url, way, bench.options.seconds)
                spent = busy.since() | {"wrk": told.cpu}
                told.must_be(200)
                ledger.close(told)
                found.loads.append(told)
                found.spent.append(spent)
                bench.say(f"  {way.name}: {number(told.edits / told.seconds)} edits/s")
    return [_section(seen)]


def _sent(url: str, way: Way, seconds: float) -> Load:
    return load.patch(url, clients=way.clients, seconds=seconds, many=way.many)


def _section(seen: dict[Way, Seen]) -> Section:
    section = Section(14, TITLES[14])
    single, together = seen[PATCH], seen[TOGETHER]
    section.goals.append(Goal("row 1's edits/s in the same run", 6, together.rate.median / single.rate.median))
    section.header = [
        *("", "edits (least to most)", "against PATCH", "p50", "p99", "CPU an edit"),
        *(f"cores: {part}" for part in PROCESSES),
    ]
    for way, found in seen.items():
        latencies = (str(Figure.of((one.at(percent) for one in found.loads), "ms")) for percent in (50, 99))
        section.rows.append(
            [
                *(way.name, found.rate.full, f"{number(found.rate.median / single.rate.median)}x", *latencies),
                f"{number(found.cost())} ms",
                *(found.cores(part) for part in PROCESSES),
            ]
        )
    section.notes.append(
        "Each request was answered 200; each of its edits has its applied row, and moved its post by one revision."
    )
    return section
