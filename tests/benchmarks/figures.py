"""Figures of several rounds, their goals, and the result of one measurement of docs/performance.md. Pure."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One measure over several rounds: the median speaks, the spread shows how much to believe it."""

    values: tuple[float, ...]
    unit: str = ""

    @classmethod
    def of(cls, values: Iterable[float], unit: str = "") -> "Figure":
        return cls(tuple(values), unit)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> str:
        return f"{number(min(self.values))} to {number(max(self.values))}"

    def __str__(self) -> str:
        return f"{number(self.median)}{' ' if self.unit else ''}{self.unit}"

    @property
    def full(self) -> str:
        """Median, and the least and the most of the rounds."""
        return str(self) if len(self.values) == 1 else f"{self} ({self.spread})"


def number(value: float) -> str:
    """Three digits that matter, and no more."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


@dataclass(frozen=True)
class Goal:
    """A goal and what became of it. `got` is in the goal's own unit: a ratio, a percentage, seconds."""

    what: str
    wanted: float
    got: float
    at_least: bool = True
    form: str = "{}x"

    @property
    def met(self) -> bool:
        return self.got >= self.wanted if self.at_least else self.got <= self.wanted

    @property
    def wants(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.form.format(f'{self.wanted:,g}')} {self.what}"

    @property
    def gets(self) -> str:
        return self.form.format(number(self.got))


def share(what: str, wanted: float, got: float, *, at_least: bool = True) -> Goal:
    """A goal in per cent; `wanted` and `got` are fractions."""
    return Goal(what, wanted * 100, got * 100, at_least=at_least, form="{} %")


@dataclass
class Section:
    """The result of one measurement: its goals, a table, remarks, pictures; or why it could not be measured."""

    number: int
    title: str
    goals: list[Goal] = field(default_factory=list)
    header: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """File name in plots/, and what it shows."""
    failure: str = ""
