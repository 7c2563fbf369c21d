"""Rows 1 to 4: one PATCH after another from 1, 16, 64 and 256 clients, to 200 and to 202, Redraft and all its peers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks import contenders, limit, load, plots
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import Contender
from tests.benchmarks.figures import Figure, Goal, Section, number, share
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Load
from tests.benchmarks.parts import Busy
from tests.benchmarks.rows import TITLES

PGBENCH = Contender("pgbench", "pgbench (no HTTP)")
PROCESSES = ("api", "worker", "postgres", "valkey", "wrk")
# What 64 clients left queued at a few thousand a second, at the pace of a slow disk.
DRAIN_WITHIN = 180


@dataclass(frozen=True)
class Cell:
    """One measurement of a contender: so many clients, and which answer each request must get."""

    clients: int
    status: int = 200
    prefer: str = ""


ONE, SIXTEEN, MANY, MOST = Cell(1), Cell(16), Cell(64), Cell(256)
ASYNC = Cell(64, 202, "respond-async")
CELLS_OF = {1: (MANY,), 2: (SIXTEEN, MANY, MOST), 3: (ONE,), 4: (ASYNC, MANY)}


@dataclass
class Results:
    """Every load of every round, who used how many cores in it, and what went wrong."""

    loads: dict[tuple[str, Cell], list[Load]] = field(default_factory=dict)
    cores: dict[tuple[str, Cell], list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[tuple[str, Cell], str] = field(default_factory=dict)

    def rate(self, key: str, cell: Cell) -> Figure | None:
        """None if it was not measured, or not as it says."""
        loads = self.loads.get((key, cell))
        return None if not loads or (key, cell) in self.failures else Figure.of((one.rate for one in loads), "/s")

    def latency(self, key: str, cell: Cell, percent: float) -> Figure | None:
        loads = [one for one in self.loads.get((key, cell), ()) if one.percentiles]
        return Figure.of((one.at(percent) for one in loads), "ms") if loads else None

    def core(self, key: str, cell: Cell, part: str) -> str:
        """Cores that a part kept busy; all workers together."""
        found = self.cores.get((key, cell), ())
        used = (sum(cores for name, cores in one.items() if name.split(" ")[0] == part) for one in found)
        return number(Figure.of(used).median) if found else ""

    def cost(self, key: str, cell: Cell) -> str:
        """CPU milliseconds an edit, of all that runs but the generator: what a busy machine distorts least."""
        pairs = zip(self.cores.get((key, cell), ()), self.loads.get((key, cell), ()), strict=True)
        costs = [1000 * (sum(cores.values()) - cores["wrk"]) / load.rate for cores, load in pairs]
        return f"{number(Figure.of(costs).median)} ms" if costs else ""


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    results = Results()
    template = bench.template()
    for turn in range(bench.options.rounds):
        for contender in [*bench.contenders(), *bench.contenders(PGBENCH)]:
            cells = _cells(contender, numbers)
            if cells:
                bench.say(f"round {turn + 1}: {contender.name}")
                with bench.ground.turn(template) as stage:
                    _turn(bench, contender, cells, stage, results)
    makers = {1: _row_1, 2: _row_2, 3: _row_3, 4: _row_4}
    sections = [makers[number](results) for number in numbers]
    _draw(bench, results, sections)
    return sections


def _cells(contender: Contender, numbers: Sequence[int]) -> list[Cell]:
    wanted = {cell for row in numbers for cell in CELLS_OF[row]}
    if contender.key != "redraft":
        wanted.discard(ASYNC)
    if contender in contenders.OF_TWO:
        wanted &= {MANY}
    if contender is PGBENCH:
        # A backend for each of its clients: that many only stand in each other's way, and the wheel's default is 100.
        wanted.discard(MOST)
    return sorted(wanted, key=lambda cell: (cell.status, cell.clients))


def _turn(bench: Bench, contender: Contender, cells: Sequence[Cell], stage: Stage, results: Results) -> None:
    """One contender's turn: all of its cells, one after the other, on one fresh database.

    A cell that fails takes no other with it; a contender that does not start has failed in all of them.
    """
    left = list(cells)

    def measure_all(url: str) -> None:
        for cell in cells:
            left.remove(cell)
            try:
                _measure(bench, results, contender, cell, stage=stage, url=url)
            except (WrongMeasureError, AssertionError) as error:
                _fail(bench, results, contender, [cell], error)

    try:
        if contender is PGBENCH:
            measure_all("")
            return
        with contender.running(stage, bench.folder) as running:
            warm = Ledger(stage)
            told = load.patch(running.url, clients=64, seconds=bench.options.warm_up)
            if not contender.answers_only:
                warm.close(told)
            measure_all(running.url)
    except (WrongMeasureError, AssertionError) as error:
        _fail(bench, results, contender, left, error)


def _fail(bench: Bench, results: Results, contender: Contender, cells: Sequence[Cell], error: Exception) -> None:
    bench.say(f"  FAILED: {error}")
    for cell in cells:
        results.failures[contender.key, cell] = str(error) or type(error).__name__


def _measure(bench: Bench, results: Results, contender: Contender, cell: Cell, *, stage: Stage, url: str) -> None:
    """Measure one cell and check it. Raises WrongMeasureError."""
    seconds = bench.options.seconds
    ledger, busy = Ledger(stage), Busy()
    if contender is PGBENCH:
        told = limit.edits(stage, clients=cell.clients, seconds=seconds)
    else:
        told = load.patch(url, clients=cell.clients, seconds=seconds, prefer=cell.prefer)
    spent = busy.since()
    told.must_be(cell.status)
    if not contender.answers_only:
        ledger.close(told, within=DRAIN_WITHIN if cell is ASYNC else 30)
    results.loads.setdefault((contender.key, cell), []).append(told)
    per_second = {part: used / told.seconds for part, used in spent.items()} | {"wrk": told.cores}
    results.cores.setdefault((contender.key, cell), []).append(per_second)
    p50 = f", p50 {number(told.at(50))} ms" if told.percentiles else ""
    bench.say(f"  {cell.clients} clients, {cell.status}: {number(told.rate)}/s{p50}, wrk {number(told.cores)} cores")


def _names(results: Results, cell: Cell) -> list[Contender]:
    """Who was measured in this cell, the fastest first, those that failed in it last."""

    def rank(contender: Contender) -> float:
        rate = results.rate(contender.key, cell)
        return -rate.median if rate else 0.0

    tried = results.loads.keys() | results.failures.keys()
    return sorted((one for one in (*contenders.ALL, PGBENCH) if (one.key, cell) in tried), key=rank)


def _table(section: Section, results: Results, cell: Cell) -> None:
    """Rate, ratio, latencies and who used the cores, of everyone in one cell."""
    section.header = [
        *(f"{cell.clients} client{'s' if cell.clients > 1 else ''}", "median (least to most)", "Redraft is"),
        *("p50", "p95", "p99", "CPU an edit", *(f"cores: {part}" for part in PROCESSES)),
    ]
    ours = results.rate("redraft", cell)
    for contender in _names(results, cell):
        rate = results.rate(contender.key, cell)
        if rate is None:
            section.rows.append([contender.name, f"**failed**: {results.failures[contender.key, cell]}"])
            section.failure = section.failure or f"{contender.name}: {results.failures[contender.key, cell]}"
            continue
        latencies = (results.latency(contender.key, cell, percent) for percent in (50, 95, 99))
        section.rows.append(
            [
                contender.name,
                rate.full,
                f"{number(ours.median / rate.median)}x" if ours else "",
                *(str(latency) if latency else "" for latency in latencies),
                results.cost(contender.key, cell),
                *(results.core(contender.key, cell, part) for part in PROCESSES),
            ]
        )


def _ratio(results: Results, cell: Cell, other: str, *, of: Cell | None = None) -> float | None:
    """Redraft's rate over another's; None where either is missing."""
    ours, theirs = results.rate("redraft", cell), results.rate(other, of or cell)
    return ours.median / theirs.median if ours and theirs else None


def _row_1(results: Results) -> Section:
    section = Section(1, TITLES[1])
    for other, wanted in ((contenders.DIRECT, 10), (contenders.PLAIN_CELERY, 20)):
        ratio = _ratio(results, MANY, other.key)
        if ratio:
            section.goals.append(Goal(other.name, wanted, ratio))
    ratio = _ratio(results, MANY, "nothing")
    if ratio:
        section.goals.append(share("of the do-nothing handler", 0.6, ratio))
    _table(section, results, MANY)
    if ("pgbench", MANY) in results.loads:
        section.notes.append(
            f"pgbench is {limit.whose()}: no HTTP, no Python; the database's limit for one commit each."
        )
    return section


def _row_2(results: Results) -> Section:
    section = Section(2, TITLES[2])
    ratio = _ratio(results, SIXTEEN, "direct")
    if ratio:
        section.goals.append(Goal("direct at 16 clients", 4, ratio))
    ours, at_64 = results.rate("redraft", MOST), results.rate("redraft", MANY)
    if ours and at_64:
        section.goals.append(
            share("of its own rate at 64 clients with 256 (no collapse)", 0.8, ours.median / at_64.median)
        )
    section.header = ["", "16 clients", "Redraft is", "p99", "64 clients", "256 clients", "Redraft is", "p99"]
    for contender in _names(results, SIXTEEN):
        row = [contender.name]
        for cell, more in ((SIXTEEN, True), (MANY, False), (MOST, True)):
            rate = results.rate(contender.key, cell)
            problem = results.failures.get((contender.key, cell))
            if problem:
                section.failure = section.failure or f"{contender.name}, {cell.clients} clients: {problem}"
            row.append(rate.full if rate else "**failed**" if problem else "")
            if more:
                ratio = _ratio(results, cell, contender.key)
                p99 = results.latency(contender.key, cell, 99)
                row += [f"{number(ratio)}x" if ratio else "", str(p99) if p99 else ""]
        section.rows.append(row)
    section.notes.append(
        "No request lost: every request of every run was answered 200, and each has its applied row and its revision."
    )
    return section


def _row_3(results: Results) -> Section:
    section = Section(3, TITLES[3])
    ours, direct = results.latency("redraft", ONE, 50), results.latency("direct", ONE, 50)
    if ours and direct and not {("redraft", ONE), ("direct", ONE)} & results.failures.keys():
        section.goals.append(Goal("direct's p50", 1.25, ours.median / direct.median, at_least=False))
    _table(section, results, ONE)
    section.notes.append("Two durable commits and two hops against one commit: 1.75x is a fair first stage.")
    return section


def _row_4(results: Results) -> Section:
    section = Section(4, TITLES[4])
    ratio = _ratio(results, ASYNC, "nothing", of=MANY)
    if ratio:
        section.goals.append(share("of the do-nothing handler", 0.7, ratio))
    cores = [f"cores: {part}" for part in PROCESSES]
    section.header = ["", "median (least to most)", "p50", "p99", "CPU a request", *cores]
    for key, cell, name in (("redraft", ASYNC, "Redraft, 202"), ("nothing", MANY, "does nothing, 200")):
        rate = results.rate(key, cell)
        if rate is None:
            section.failure = section.failure or results.failures.get((key, cell), "")
            continue
        latencies = [str(results.latency(key, cell, percent)) for percent in (50, 99)]
        used = (results.core(key, cell, part) for part in PROCESSES)
        section.rows.append([name, rate.full, *latencies, results.cost(key, cell), *used])
    section.notes.append("The workers apply meanwhile, on the same cores; afterwards every edit was applied, once.")
    return section


def _draw(bench: Bench, results: Results, sections: Sequence[Section]) -> None:
    """Throughput against clients for row 2, and the spread of latencies for row 1."""
    by_number = {section.number: section for section in sections}
    if 2 in by_number:
        lines = {}
        for contender in (*contenders.ALL, PGBENCH):
            rates = {cell.clients: results.rate(contender.key, cell) for cell in (ONE, SIXTEEN, MANY, MOST)}
            points = [(clients, rate.median) for clients, rate in rates.items() if rate]
            if len(points) > 1:
                lines[contender.name] = points
        if lines:
            name = "throughput.svg"
            drawn = plots.throughput(lines, "Edits a second, by clients that each wait for their 200")
            (bench.plots / name).write_text(drawn, encoding="utf-8")
            by_number[2].pictures.append((name, "Edits a second against clients"))
    if 1 in by_number:
        curves = {}
        for contender in contenders.ALL:
            loads = [one for one in results.loads.get((contender.key, MANY), ()) if one.percentiles]
            if loads and contender not in contenders.OF_TWO:
                curves[contender.name] = [
                    (percent, Figure.of(one.at(percent) for one in loads).median) for percent, _ in loads[0].percentiles
                ]
        if curves:
            name = "latency.svg"
            drawn = plots.latencies(curves, "Time from PATCH to 200, 64 clients")
            (bench.plots / name).write_text(drawn, encoding="utf-8")
            by_number[1].pictures.append((name, "Latencies at 64 clients"))
