"""REPORT.md: what a soak came to, on what, and how to do it again."""

import argparse
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from tests.benchmarks.ground import filesystem
from tests.benchmarks.machine import flush_milliseconds, processor
from tests.soak.clients import Tally
from tests.soak.holds import Holds
from tests.soak.jobs import Jobs
from tests.soak.log import Log
from tests.soak.posts import BULK, COLD, HOT, SLIDES, Posts
from tests.soak.stack import Stack
from tests.soak.strikes import Strikes
from tests.soak.verdict import Verdict
from tests.soak.watch import Sample, Watch

ROWS = 14
BEFORE = 10.0
HEAD = """\
# What a soak came to

Written by `make soak`; do not edit. Real processes, all that `redraft up` starts, restarted by nobody but its own
supervisor; {clients} clients over HTTP, each with one request at a time; {hot} hot posts that get nearly half of all
edits, {cold:,} cold ones, {slides} that are rendered, {bulk:,} that bulk jobs move to and fro, and four new ones a
second that go out while they are edited. Meanwhile the faults below strike at random. At the end the oracle of
`tests/faults` judges every edit against every answer, every row and every call that the publisher received.
"""


@dataclass
class Run:
    """Everything that is known of one run. Times are seconds. `door`: the journal of an opponent."""

    options: argparse.Namespace
    posts: Posts
    log: Log
    tally: Tally
    jobs: Jobs
    strikes: Strikes
    watch: Watch
    holds: Holds
    seconds: float = 0.0
    drained: float | None = None
    quiet: float | None = None
    calmed: datetime | None = None
    left_over: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    door: dict[str, Any] = field(default_factory=dict)
    surprises: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return self.verdict.clean and self.quiet is not None and not self.jobs.stuck


def machine(running: Stack) -> Sequence[tuple[str, str]]:
    """Pairs for a table. Nothing in them names this machine, its users or its folders."""
    flush = flush_milliseconds(running.folder)
    return [
        ("processor", f"{processor()}, {psutil.cpu_count()} cores, shared with the load"),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}"),
        ("disk", f"{filesystem(running.folder)}, 8 kB flushed in {flush:.2f} ms (median)"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
    ]


def summary(run: Run) -> str:
    """A few lines for the terminal."""
    broken = ", ".join(f"{name} {count}" for name, count in run.verdict.broken.items())
    said = [
        f"{run.tally.accepted:,} edits accepted in {run.seconds:.0f} s, {run.verdict.judged:,} judged; {broken}",
        *run.verdict.words,
    ]
    if run.quiet is None:
        said += ["it never came to rest; under way are", *run.left_over]
    if run.jobs.stuck:
        said.append(f"jobs that did not end: {', '.join(run.jobs.stuck)}")
    return "\n".join([*said, "clean" if run.clean else "NOT clean"])


def render(run: Run, told: Sequence[tuple[str, str]]) -> str:
    found, tally = run.verdict, run.tally
    head = HEAD.format(clients=run.options.clients, hot=HOT, cold=COLD, slides=SLIDES, bulk=BULK)
    answers = ", ".join(f"{count:,} x {name}" for name, count in sorted(tally.answers.items()))
    results = [
        ("accepted (answered 2xx)", f"{tally.accepted:,}"),
        ("edits with a row", f"{sum(found.results.values()):,}, of these {found.moves:,} moves by bulk jobs"),
        *((name, f"{found.results.get(name, 0):,}") for name in ("applied", "rejected", "failed", "queued")),
        *((f"**{name}**", f"**{count}**") for name, count in found.broken.items()),
        ("posts", ", ".join(f"{count:,} {status}" for status, count in sorted(found.posts.items()))),
        ("publishes", f"{found.published:,} keys in {found.calls:,} calls of the publisher"),
        *([("effects at the opponent's door", f"{len(run.door['effects']):,}")] if run.door else []),
        ("bulk jobs", _jobs(run.jobs)),
        ("holds and resumes", ", ".join(f"{n} of {level}" for level, n in _levels(run).items()) or "none"),
        ("answers", answers),
        ("longest stall", f"{tally.stall:.1f} s in which no client was answered 2xx, from {tally.stall_at:.0f} s on"),
        ("what struck in it and 10 s before", "; ".join(_struck(run.strikes, tally)) or "nothing"),
        ("slowest answer 2xx", f"{tally.slowest:.1f} s, asked at {tally.slowest_at:.0f} s"),
        ("queue empty after the last edit", _seconds(run.drained)),
        ("nothing under way any more", f"{_seconds(run.quiet)}; posts were moved to up to two minutes later"),
        ("surprises in the logs", ", ".join(f"{count} x {words}" for words, count in run.surprises.items()) or "none"),
    ]
    about = [("date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")), ("seed", str(run.options.seed)), *told]
    about.append(
        ("duration", f"{run.seconds:.0f} s of load, {tally.accepted / max(run.seconds, 1):,.0f} edits a second")
    )
    parts = [head, f"Verdict: **{'clean' if run.clean else 'not clean'}**.\n", _table(("", ""), about)]
    parts += ["## Ends\n", _table(("", ""), results)]
    if found.words:
        parts.append(
            "\n".join(["What was broken, the first of it:\n", *(f"- {words}" for words in found.words)]) + "\n"
        )
    struck = [(kind, str(count)) for kind, count in sorted(run.strikes.struck.items())]
    parts += ["## Faults that struck\n", _table(("fault", "times"), struck)]
    parts += ["## Over time\n", _over_time(run.watch.samples), _again(run)]
    return "\n".join(parts)


def _struck(strikes: Strikes, tally: Tally) -> list[str]:
    begin, end = tally.stall_at - BEFORE, tally.stall_at + tally.stall
    return [f"{at:.0f} s: {words}" for at, words in strikes.diary if begin <= at <= end]


def _levels(run: Run) -> Counter[str]:
    return Counter(f"{one.level}{', missed posts published' * one.published}" for one in run.holds.periods)


def _jobs(jobs: Jobs) -> str:
    states = Counter(str(job["status"]) for job in jobs.ended)
    moved = sum(int(job.get("applied") or 0) for job in jobs.ended)
    stuck = f"; {len(jobs.stuck)} did not end" if jobs.stuck else ""
    return f"{', '.join(f'{count} {name}' for name, count in states.items())}; {moved:,} moves{stuck}"


def _seconds(value: float | None) -> str:
    return "**never**" if value is None else f"{value:.1f} s"


def _over_time(samples: Sequence[Sample]) -> str:
    """About a dozen looks, evenly chosen; the last one is at rest again."""
    step = max(1, -(-len(samples) // ROWS))
    chosen = [*samples[::step], samples[-1]] if (len(samples) - 1) % step else samples[::step]
    roles = sorted({role for sample in samples for role in sample.memory} - {"other"})
    header = ("s", "accepted", "queued", *(f"{role}, MiB" for role in roles), "Redis holds, MiB", "keys", "messages")
    lines = [
        (
            f"{sample.at:.0f}",
            f"{sample.accepted:,}",
            _or_none(sample.queued),
            *(f"{sample.memory.get(role, 0):.0f}" for role in roles),
            "away" if sample.redis is None else f"{sample.redis:.1f}",
            _or_none(sample.keys),
            _or_none(sample.messages),
        )
        for sample in chosen
    ]
    most = max((sample.redis for sample in samples if sample.redis is not None), default=0.0)
    words = (
        f"Memory is of each role with its pool; pages that several share are counted once. Of {len(samples)} looks; "
        f"the last one is after the load. Redis never held more than {most:.1f} MiB."
    )
    return _table(header, lines) + "\n" + words + "\n"


def _or_none(value: int | None) -> str:
    return "away" if value is None else f"{value:,}"


def _again(run: Run) -> str:
    options = run.options
    return (
        "## Again\n\n```\n"
        f'make soak EDITS={options.edits} ARGS="--minutes {options.minutes:g} --clients {options.clients} '
        f'--seed {options.seed}{" --opponent" if options.opponent else ""}"\n```\n\n'
        "The same seed makes the same choices; when they meet which edit is the machine's affair.\n"
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"
