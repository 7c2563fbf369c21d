"""RESULTS.md: what was measured, on what, against which goals, and how to do it again."""

from collections.abc import Sequence
from datetime import UTC, datetime

from tests.benchmarks.bench import Options
from tests.benchmarks.figures import Section

HEAD = """\
# What was measured

Written by `make bench`; do not edit. The goals stand in the row's own words; absolute figures vary from machine to
machine, the ratios are the result. Each figure is the median of its rounds, the least and the most of them beside it.
The rounds are interleaved (A B C, A B C, ...), each contender's turn starts from a fresh copy of the same {posts:,}
posts, on the same PostgreSQL and the same Redis, set up as `redraft up` sets them up, and everything shares the
machine's cores, the load generator too. Redraft is the whole of `redraft up`: API, all six workers, beat and Flower.
After each run the database is asked: every answered edit has its applied row, each moved its post by one revision,
none was recorded twice, none is left in the queue. A run of which that is not true, or in which any request got another
answer than the one it says, is shown as failed.
"""


def render(sections: Sequence[Section], machine: Sequence[tuple[str, str]], options: Options, commit: str) -> str:
    parts = [HEAD.format(posts=100_000)]
    if options.rounds < 3 or options.seconds < 10:
        parts.append(
            f"**Preliminary: rounds {options.rounds}, each of {options.seconds:g} s.** "
            "A run to quote has at least 3 rounds of 10 s, on a machine with nothing else to do.\n"
        )
    parts.append("## In short\n")
    parts.append(_summary(sections))
    parts.append("## The machine\n")
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    told = [("date", date), ("Redraft", commit), *machine]
    parts.append(_table(["", ""], told))
    parts += [_section(section) for section in sections]
    parts.append(_repeat(options))
    return "\n".join(parts)


def _summary(sections: Sequence[Section]) -> str:
    rows = []
    for section in sections:
        if section.failure:
            rows.append([str(section.number), section.title, "", "", f"**failed**: {_line(section.failure)}"])
        rows += [
            [str(section.number), section.title, goal.wants, goal.gets, "yes" if goal.met else "**no**"]
            for goal in section.goals
        ]
        if not section.failure and not section.goals:
            rows.append([str(section.number), section.title, "", "", "no figure to hold against the goal"])
    return _table(["#", "measure", "goal", "measured", "met"], rows)


def _section(section: Section) -> str:
    parts = [f"## {section.number}. {section.title}\n"]
    if section.failure:
        parts.append(f"**Failed**: {_line(section.failure)}\n")
    if section.goals:
        verdicts = (f"- {goal.wants}: **{goal.gets}**{'' if goal.met else ', missed'}" for goal in section.goals)
        parts.append("\n".join(verdicts) + "\n")
    if section.rows:
        parts.append(_table(section.header, section.rows))
    parts += [f"{note}\n" for note in section.notes]
    parts += [f"![{text}](plots/{name})\n" for name, text in section.pictures]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    width = len(header)
    lines = [header, ["---"] * width, *([*row, *[""] * (width - len(row))] for row in rows)]
    return (
        "\n".join("| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
    )


def _line(text: str) -> str:
    """One line of it, short enough for a table: a process's last words can be long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:297] + "..."


def _repeat(options: Options) -> str:
    rows = ",".join(map(str, options.rows))
    return f"""\
## Again

```
make bench                                          # everything, as above; about an hour and a quarter
make bench ARGS="--rows 1,2,3 --rounds 3"           # some rows
make bench ARGS="--rows 1 --contenders redraft,direct,nothing --seconds 5 --output /tmp/results.md"
```

This run was `make bench ARGS="--rows {rows} --rounds {options.rounds} --seconds {options.seconds:g}"`. It needs `wrk`
on PATH and says how to get it; PostgreSQL, pgbench and Valkey come with the wheels of the lock file. The data lies in a
new folder under /var/tmp (`--folder`), which must be on a disk: a commit into memory waits for nothing.
"""
