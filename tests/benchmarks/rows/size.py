"""Row 9: whether the size of the tables matters: the same load on fewer posts, on more, and on a long history."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from tests.benchmarks import data, load, plots
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import REDRAFT
from tests.benchmarks.figures import Figure, Section, number, share
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Load
from tests.benchmarks.rows import TITLES


@dataclass(frozen=True)
class Size:
    """So many posts, and so many edits that ended long ago."""

    database: str
    posts: int
    audit_rows: int = 0

    @property
    def name(self) -> str:
        posts = f"{self.posts:,} posts"
        return f"{posts}, {self.audit_rows:,} old edits" if self.audit_rows else posts

    def fill(self, connection: psycopg.Connection) -> None:
        data.workspace(connection)
        data.posts(connection, self.posts)
        if self.audit_rows:
            data.audit_rows(connection, self.audit_rows, posts=self.posts)


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    sizes = [
        Size("size_small", 10_000),
        Size("size_usual", data.POSTS),
        Size("size_large", bench.options.posts_large),
        Size("size_history", data.POSTS, bench.options.audit_rows),
    ]
    for size in sizes:
        bench.say(f"loading {size.name}")
        bench.ground.template(size.database, size.fill)
    loads: dict[Size, list[Load]] = {size: [] for size in sizes}
    for turn in range(bench.options.rounds):
        for size in sizes:
            bench.say(f"round {turn + 1}: {size.name}")
            # In place: a copy of ten million rows would take longer than the measurement; what rounds add is little.
            stage = bench.ground.stage(size.database)
            with REDRAFT.running(stage, bench.folder) as running:
                warm = Ledger(stage)
                warm.close(load.patch(running.url, clients=64, seconds=bench.options.warm_up, posts=size.posts))
                ledger = Ledger(stage)
                told = load.patch(running.url, clients=64, seconds=bench.options.seconds, posts=size.posts)
                told.must_be(200)
                ledger.close(told)
            loads[size].append(told)
            bench.say(f"  {number(told.rate)}/s, p50 {number(told.at(50))} ms")
    return [_section(bench, loads)]


def _section(bench: Bench, loads: dict[Size, list[Load]]) -> Section:
    rates = {size: Figure.of((one.rate for one in told), "/s") for size, told in loads.items()}
    medians = [rate.median for rate in rates.values()]
    section = Section(9, TITLES[9])
    section.goals.append(share("of the fastest is the slowest", 0.9, min(medians) / max(medians)))
    section.header = ["", "edits/s, median (least to most)", "p50", "p95", "p99"]
    for size, rate in rates.items():
        latencies = (str(Figure.of((one.at(percent) for one in loads[size]), "ms")) for percent in (50, 95, 99))
        section.rows.append([size.name, rate.full, *latencies])
    name = "size.svg"
    labels = [_short(size) for size in loads]
    drawn = plots.by_size({"Redraft": medians}, labels, "edits a second", "Edits a second, by size of the tables")
    (bench.plots / name).write_text(drawn, encoding="utf-8")
    section.pictures.append((name, "Edits a second against the size of the tables"))
    return section


def _short(size: Size) -> str:
    def brief(count: int) -> str:
        return f"{count / 1e6:g} M" if count >= 1_000_000 else f"{count / 1000:g} k"

    return f"{brief(size.posts)} posts" + (f", {brief(size.audit_rows)} old edits" if size.audit_rows else "")
