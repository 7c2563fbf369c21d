"""What `redraft reschedule` shows: a progress bar, a summary. In a pipe plain lines, without colours."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from shared.cli.reschedule_client import LIVE, Job, Jobs
from shared.domain.plurals import counted
from shared.domain.reschedules import WORDS

EVERY = 5.0
BACK = "moved back"
OUTCOMES = ("applied", "skipped", "failed")


class Rate(ProgressColumn):
    """Posts a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} posts/s" if task.speed else "")


class Decided(ProgressColumn):
    """How many posts of how many; the job knows their number once a worker has begun with it."""

    def render(self, task: Task) -> Text:
        return Text("waiting for a worker" if task.total is None else f"{task.completed:,.0f} of {task.total:,.0f}")


class Totals:
    """One job's counters, or those of many together. `missing`: posts of jobs that were not started."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.jobs: list[Job] = []
        self.moved = self.missing = 0

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        self.counts.update({name: job[name] for name in OUTCOMES} | {"total": job["total"] or 0})
        self.moved += moved(job)

    @property
    def unchanged(self) -> int:
        """Posts that were there already."""
        return self.counts["applied"] - self.moved

    @property
    def dry(self) -> bool:
        return all(job["dryRun"] for job in self.jobs)

    @property
    def exit_code(self) -> int:
        """0 all applied, 3 some skipped, 1 some failed or a job that did not come to its end."""
        if self.counts["failed"] or self.missing or any(job["status"] != "done" for job in self.jobs):
            return 1
        return 3 if self.counts["skipped"] else 0


class Bar:
    """The progress of several jobs, one after the other, as one. `total`: posts of all of them, where that is known."""

    def __init__(self, screen: "Screen", words: str, total: int | None, bar: Progress | None) -> None:
        self._screen, self._words, self._total, self._bar = screen, words, total, bar
        self._task = bar.add_task(words, total=total) if bar else None
        self._done = 0
        self._began = self._shown_at = time.monotonic()

    def follow(self, jobs: Jobs, job: Job) -> Job:
        """Show a job's progress up to its end; the job as it ended."""
        for now in jobs.watch(job):
            self._show(now)
            job = now
        self._done += decided(job)
        return job

    def _show(self, job: Job) -> None:
        total = self._total if self._total is not None else job["total"]
        if total is None:
            return
        so_far = self._done + decided(job)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total, completed=so_far)
            return
        at = time.monotonic()
        if job["status"] in LIVE and at - self._shown_at >= EVERY:
            self._shown_at = at
            rate = so_far / (at - self._began)
            left = f", {(total - so_far) / rate:,.0f} s left" if rate else ""
            self._screen.complain(f"{self._words} {so_far:,} of {total:,}, {rate:,.0f} posts/s{left}")


class Screen:
    """Words go to standard output, or to standard error where that is for machines (`--json`)."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.words = Console(file=sys.stderr if as_json else sys.stdout, highlight=False, soft_wrap=True)
        self._errors = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def say(self, words: str = "") -> None:
        self.words.print(Text(words))

    def complain(self, words: str) -> None:
        self._errors.print(Text(words))

    def print_json(self, *jobs: Mapping[str, Any]) -> None:
        """Each job as a line of JSON, where that was asked for."""
        if self._as_json:
            for job in jobs:
                typer.echo(json.dumps(job))

    def confirmed(self, question: str) -> bool:
        """Whether the person says yes; what a no means is said."""
        if typer.confirm(question, err=self._as_json):
            return True
        self.say("Nothing was changed.")
        return False

    @contextmanager
    def working(self, words: str) -> Iterator[None]:
        """Say what is being done, while it is, on a terminal."""
        with self._errors.status(words):
            yield

    @contextmanager
    def bar(self, words: str, total: int | None) -> Iterator[Bar]:
        """One bar on a terminal; elsewhere a line every few seconds."""
        if not self._errors.is_terminal:
            yield Bar(self, words, total, None)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), Decided(), Rate(), TimeRemainingColumn())
        with Progress(*columns, console=self._errors, transient=True, redirect_stdout=False) as bar:
            yield Bar(self, words, total, bar)

    def summary(self, jobs: Jobs, totals: Totals, done: str = "moved") -> None:
        """What has been done, and to what not, and why not."""
        self.say(_said(totals, f"would be {done}" if totals.dry else done))
        if totals.unchanged:
            had = "has its time" if totals.unchanged == 1 else "have their times"
            self.say(f"{counted(totals.unchanged, 'post')} {had} already.")
        self.reasons(jobs, totals)
        for job in totals.jobs:
            if job["status"] != "done":
                self.say(f"{job['id']} was {job['status']}{': ' + job['error'] if 'error' in job else ''}.")
        if totals.missing:
            self.say(f"Not sent after that: {counted(totals.missing, 'post')}.")

    def reasons(self, jobs: Jobs, totals: Totals) -> None:
        for outcome in OUTCOMES[1:]:
            counts: Counter[str] = Counter()
            examples: dict[str, list[str]] = {}
            for job in totals.jobs:
                if job[outcome]:
                    more, some = jobs.reasons(job["id"], outcome)
                    counts += more
                    examples = some | examples
            for reason, count in counts.most_common():
                some_ids = ", ".join(examples[reason]) + (", …" if count > len(examples[reason]) else "")
                self.say(f"{count:,} {outcome}: {WORDS.get(reason, reason)} ({some_ids})")


def decided(job: Job) -> int:
    """How many posts of the job have an outcome."""
    return sum(job[name] for name in OUTCOMES)


def moved(job: Job) -> int:
    """How many posts are not where they were; of a dry run, would not be. An API of the version before does not count
    those that were there already.
    """
    return int(job["applied"]) - (job.get("unchanged") or 0)


def _said(totals: Totals, done: str) -> str:
    if not totals.counts["total"] and all(job["status"] == "done" for job in totals.jobs):
        return "No post had to be moved back." if done == BACK else "No waiting post matches; there is nothing to move."
    return f"{totals.moved:,} of {totals.counts['total']:,} posts {done}."
