"""What a row needs to measure: the servers, how long and how often, and where to say what happens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import contenders, data
from tests.benchmarks.contenders import Contender
from tests.benchmarks.ground import Ground

BENCH = "bench"
"""The template with 100,000 posts that most rows start from."""


@dataclass(frozen=True)
class Options:
    """What the command line says. Times are seconds."""

    rows: Sequence[int]
    rounds: int = 3
    seconds: float = 10
    warm_up: float = 3
    flood_seconds: float = 600
    posts_large: int = 1_000_000
    audit_rows: int = 10_000_000
    contenders: Sequence[str] = field(default_factory=lambda: [one.key for one in contenders.ALL] + ["pgbench"])


@dataclass
class Bench:
    """One run of `python -m tests.benchmarks`."""

    ground: Ground
    options: Options
    plots: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return self.ground.folder

    def contenders(self, *wanted: Contender) -> list[Contender]:
        """Those of the wanted (all of them if none are named) that the command line did not leave out."""
        return [one for one in wanted or contenders.ALL if one.key in self.options.contenders]

    def template(self) -> str:
        self.ground.template(BENCH, data.bench)
        return BENCH

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)
