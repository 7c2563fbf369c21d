"""`python -m tests.benchmarks`: what `make bench` runs (docs/performance.md, tests/benchmarks/RESULTS.md)."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from shared.local.errors import LocalError
from tests.benchmarks import contenders, load, machine, report, rows
from tests.benchmarks.bench import Bench, Options
from tests.benchmarks.figures import Section
from tests.benchmarks.ground import WrongMeasureError, forget_environment, ground
from tests.processes import ROOT

HERE = Path(__file__).parent
# /tmp is kept in memory on many systems; this one survives restarts and so lies on a disk.
FOLDER = Path("/var/tmp")  # noqa: S108 - a folder of our own is made in it, by mkdtemp


def main() -> int:
    options, folder, output = _parse(sys.argv[1:])
    forget_environment()
    signal.signal(signal.SIGTERM, _stop)
    try:
        load.wrk()
        with ground(folder) as servers:
            bench = Bench(servers, options, output.parent / "plots")
            told = machine.describe(servers)
            for what, value in told:
                bench.say(f"{what}: {value}")
            sections = _measure(bench, told, output)
    except (WrongMeasureError, LocalError) as error:
        print(error, file=sys.stderr)
        return 2
    failed = [section for section in sections if section.failure]
    for section in failed:
        print(f"row {section.number} failed: {section.failure}", file=sys.stderr)
    print(f"\nwritten to {output}")
    return 1 if failed else 0


def _measure(bench: Bench, told: Sequence[tuple[str, str]], output: Path) -> list[Section]:
    """Row by row; after each, what there is so far is written, so that a run that is broken off leaves that."""
    bench.plots.mkdir(parents=True, exist_ok=True)
    sections: list[Section] = []
    for name, numbers in rows.ORDER:
        wanted = [number for number in numbers if number in bench.options.rows]
        if not wanted:
            continue
        bench.say(f"rows {', '.join(map(str, wanted))}")
        try:
            sections += rows.module(name).measure(bench, wanted)
        except (WrongMeasureError, AssertionError, LocalError) as error:
            bench.say(f"FAILED: {error}")
            failure = str(error) or type(error).__name__
            sections += [Section(number, rows.TITLES[number], failure=failure) for number in wanted]
        output.write_text(report.render(sections, told, bench.options, _commit()), encoding="utf-8")
    _say_goals(bench, sections)
    return sections


def _say_goals(bench: Bench, sections: Sequence[Section]) -> None:
    for section in sections:
        for goal in section.goals:
            bench.say(f"row {section.number}: {goal.wants}: {goal.gets}{'' if goal.met else ' (missed)'}")


def _parse(words: Sequence[str]) -> tuple[Options, Path, Path]:
    keys = [*(one.key for one in contenders.ALL), "pgbench"]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, rows.TITLES)), help="which rows, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; fewer than 3 are preliminary")
    parser.add_argument("--seconds", type=float, default=10, help="of each run of the load generator")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds of load before a contender is measured")
    parser.add_argument("--contenders", default=",".join(keys), help=f"some of {','.join(keys)}")
    parser.add_argument("--flood-seconds", type=float, default=600, help="row 11's flood")
    parser.add_argument("--posts-large", type=int, default=1_000_000, help="row 9's large table of posts")
    parser.add_argument("--audit-rows", type=int, default=10_000_000, help="row 9's old edits")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the servers keep their data; on a disk")
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md", help="plots/ is written beside it")
    given = parser.parse_args(words)
    try:
        numbers = sorted({int(word) for word in given.rows.split(",") if word})
    except ValueError:
        parser.error(f"--rows takes numbers with commas between, not {given.rows}")
    chosen = given.contenders.split(",")
    if set(numbers) - set(rows.TITLES):
        parser.error(f"--rows: there are {', '.join(map(str, rows.TITLES))}")
    if set(chosen) - set(keys):
        parser.error(f"--contenders: there are {', '.join(keys)}")
    if given.rounds < 1 or given.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    options = Options(
        rows=numbers,
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up=given.warm_up,
        flood_seconds=given.flood_seconds,
        posts_large=given.posts_large,
        audit_rows=given.audit_rows,
        contenders=chosen,
    )
    return options, given.folder, given.output


def _stop(number: int, _: FrameType | None) -> None:
    """SIGTERM ends us as Ctrl-C does: by way of everything that has to be stopped."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def _commit() -> str:
    """The commit that was measured, if this is a checkout, and whether it was changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # But for what this run itself writes.
        others = ("--", ".", ":!tests/benchmarks/RESULTS.md", ":!tests/benchmarks/plots")
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no", *others) else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
