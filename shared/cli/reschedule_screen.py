"""What `redraft reschedule` shows: a preview, a progress bar, a summary. In a pipe plain lines, without colours."""

import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shared.cli.reschedule_client import LIVE, Client, Job
from shared.domain.reschedules import WORDS

SHOWN = 10
EVERY = 5.0
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
    """One job's counters, or those of many together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.jobs: list[Job] = []

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        self.counts.update({name: job[name] for name in OUTCOMES} | {"total": job["total"] or 0})

    @property
    def exit_code(self) -> int:
        """0 all applied, 3 some skipped, 1 some failed or a job that did not come to its end."""
        if self.counts["failed"] or any(job["status"] != "done" for job in self.jobs):
            return 1
        return 3 if self.counts["skipped"] else 0


class Screen:
    """Words go to standard output, or to standard error where that is for machines (`--json`). `command`: how what it
    advises to enter begins.
    """

    def __init__(self, *, as_json: bool, command: str) -> None:
        self._command = command
        self._words = Console(file=sys.stderr if as_json else sys.stdout, highlight=False, soft_wrap=True)
        self._errors = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def say(self, words: str = "") -> None:
        self._words.print(Text(words))

    def complain(self, words: str) -> None:
        self._errors.print(Text(words))

    def preview(self, client: Client, totals: Totals) -> None:
        """What a dry run found: some of the moves, and every reason against one."""
        moves: list[dict[str, Any]] = []
        for job in totals.jobs:
            if len(moves) < SHOWN and job["applied"]:
                moves += client.moves(job["id"], SHOWN - len(moves))
        if moves:
            table = Table("post", "from (UTC)", "to (UTC)", box=None, pad_edge=False)
            for one in moves:
                table.add_row(Text(one["postId"], no_wrap=True), _shown(one["before"]), _shown(one["after"]))
            self._words.print(table, soft_wrap=False, width=None if self._words.is_terminal else 200)
        more = totals.counts["applied"] - len(moves)
        if more:
            self.say(f"… and {more:,} more")
        self.say(_said(totals, "would be moved"))
        self.reasons(client, totals)

    def summary(self, client: Client, totals: Totals) -> None:
        """What has been done, and to what not, and why not."""
        dry = all(job["dryRun"] for job in totals.jobs)
        self.say(_said(totals, "would be moved" if dry else "moved"))
        self.reasons(client, totals)
        for job in totals.jobs:
            if job["status"] != "done":
                self.say(f"{job['id']} was {job['status']}{': ' + job['error'] if 'error' in job else ''}.")
        names = [job["id"] for job in totals.jobs]
        if len(names) == 1 and not dry and totals.counts["applied"]:
            self.say(f"Undo it with: {self._command} --revert {names[0]}")
        elif len(names) > 1:
            self.say(f"{len(names)} jobs, {names[0]} to {names[-1]}; each can be undone with --revert.")

    def reasons(self, client: Client, totals: Totals) -> None:
        for outcome in OUTCOMES[1:]:
            counts: Counter[str] = Counter()
            examples: dict[str, list[str]] = {}
            for job in totals.jobs:
                if job[outcome]:
                    more, some = client.reasons(job["id"], outcome)
                    counts += more
                    examples = some | examples
            for reason, count in counts.most_common():
                some_ids = ", ".join(examples[reason]) + (", …" if count > len(examples[reason]) else "")
                self.say(f"{count:,} {outcome}: {WORDS.get(reason, reason)} ({some_ids})")

    def follow(self, client: Client, job: Job, words: str) -> Job:
        """Show a job's progress up to its end; the job as it ended."""
        if not self._errors.is_terminal:
            return self._follow_in_lines(client, job, words)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            Decided(),
            Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._errors, transient=True) as bar:
            task = bar.add_task(words, total=None)
            for now in client.watch(job):
                if now["total"] is not None:
                    bar.update(task, total=now["total"], completed=_decided(now))
                job = now
        return job

    def _follow_in_lines(self, client: Client, job: Job, words: str) -> Job:
        began = shown_at = time.monotonic()
        for now in client.watch(job):
            at = time.monotonic()
            if now["total"] and now["status"] in LIVE and at - shown_at >= EVERY:
                shown_at, decided = at, _decided(now)
                rate = decided / (at - began)
                left = f", {(now['total'] - decided) / rate:,.0f} s left" if rate else ""
                self.complain(f"{words} {decided:,} of {now['total']:,}, {rate:,.0f} posts/s{left}")
            job = now
        return job


def _decided(job: Job) -> int:
    return sum(job[name] for name in OUTCOMES)


def _said(totals: Totals, done: str) -> str:
    if not totals.counts["total"] and all(job["status"] == "done" for job in totals.jobs):
        return "No waiting post matches; there is nothing to move."
    return f"{totals.counts['applied']:,} of {totals.counts['total']:,} posts {done}."


def _shown(instant: str | None) -> str:
    return (instant or "").removesuffix(":00Z").removesuffix("Z").replace("T", " ")
