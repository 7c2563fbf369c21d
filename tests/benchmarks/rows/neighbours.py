"""Row 13: a quiet workspace's PATCH a second, alone and beside another workspace's flood."""

import http.client
import json
import math
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlsplit

import psycopg

from tests.benchmarks import data
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import REDRAFT
from tests.benchmarks.figures import Figure, Goal, Section, number
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.load import Wrk
from tests.benchmarks.rows import TITLES
from tests.waiting import eventually

ALONE = 0
FLOODS = (64, 512, 2500)
EVERY = 1.0
AT_LEAST = 20
"""Seconds, which is as many requests: below that a p95 is only the slowest of them."""
SETTLING = 3.0
"""Seconds of flood before it is measured beside: thousands of connections have to be made first."""

WORKSPACE, ACCOUNT, KEY_ID, POST = "ws_quiet", "acc_quiet", "key_quiet", "post_quiet"
SECRET = "sk_quiet_0123456789abcdef0123456789abcdef"

_POST = """
    INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, scheduled_time,
                       status)
    VALUES (%s, %s, %s, 'tiktok', 'video', '"https://cdn.example.com/q.mp4"', 'quiet', now() + interval '9 days',
            'generated')
"""
_QUEUED = "SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FROM edits"
_APPLIED = "SELECT count(*) FILTER (WHERE status = 'applied'), count(*) FROM edits WHERE workspace_id = %s"


@dataclass
class Beside:
    """What the quiet client saw beside one flood, round by round: milliseconds; and what the flood was answered."""

    rounds: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def at(self, percent: float) -> Figure:
        return Figure.of((percentile(one, percent) for one in self.rounds), "ms")


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    assert list(numbers) == [13]
    seen = {flood: Beside() for flood in (ALONE, *FLOODS)}
    template = bench.template()
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}")
        with bench.ground.turn(template) as stage:
            with stage.sql() as sql:
                _quiet_workspace(sql)
            with _files(), REDRAFT.running(stage, bench.folder) as running:
                _quiet(running.url, 3)
                for flood, beside in seen.items():
                    _beside(bench, stage, running.url, flood, beside)
    return [_section(seen)]


def _quiet_workspace(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO workspaces (id, name) VALUES (%s, 'quiet')", [WORKSPACE])
    sql.execute(
        "INSERT INTO accounts (id, workspace_id, platform, name) VALUES (%s, %s, 'tiktok', 'quiet')",
        [ACCOUNT, WORKSPACE],
    )
    sql.execute(
        "INSERT INTO api_keys (id, workspace_id, name, secret_hash, hint, scopes)"
        " VALUES (%s, %s, 'quiet', %s, %s, ARRAY['posts:write'])",
        [KEY_ID, WORKSPACE, sha256(SECRET.encode()).digest(), SECRET[-4:]],
    )
    sql.execute(_POST.encode(), [POST, WORKSPACE, ACCOUNT])


@contextmanager
def _files() -> Iterator[None]:
    """Each connection is a file of the generator's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _beside(bench: Bench, stage: Stage, url: str, flood: int, beside: Beside) -> None:
    seconds = max(AT_LEAST, bench.options.seconds)
    if flood == ALONE:
        times = _quiet(url, seconds)
    else:
        generator = Wrk(url, clients=flood, seconds=SETTLING + seconds + 1)
        try:
            time.sleep(SETTLING)
            times = _quiet(url, seconds)
            if not generator.running:
                raise WrongMeasureError(f"the flood of {flood} connections ended before the quiet client did")
            told = generator.result()
        finally:
            generator.close()
        beside.rates.append(told.rate)
        beside.statuses.update(told.statuses)
        _settle(stage)
    beside.rounds.append(times)
    shown = ", ".join(f"{status}: {count}" for status, count in sorted(beside.statuses.items()))
    p50, p95 = (number(percentile(times, percent)) for percent in (50, 95))
    bench.say(f"  {flood or 'no'} connections: quiet p50 {p50} ms, p95 {p95} ms; the flood's answers {shown or 'none'}")


def _quiet(url: str, seconds: float) -> list[float]:
    """PATCH once a second, on one connection; the milliseconds of each. Raises WrongMeasureError unless all are 200."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    times: list[float] = []
    began = time.monotonic()
    try:
        while len(times) * EVERY < seconds:
            time.sleep(max(0.0, began + len(times) * EVERY - time.monotonic()))
            at = time.monotonic()
            body = json.dumps({"caption": f"quiet {len(times)} {at}"})
            connection.request("PATCH", f"/v1/posts/{POST}", body, headers)
            response = connection.getresponse()
            text = response.read()
            times.append(1000 * (time.monotonic() - at))
            if response.status != 200:
                raise WrongMeasureError(f"the quiet client was answered {response.status}: {text.decode()[:200]}")
    finally:
        connection.close()
    return times


def _settle(stage: Stage) -> None:
    """Wait until the flood's edits have ended; all of them were applied, and the quiet client's too.

    Requests whose clients have gone are recorded still: it has ended when nothing new has come for two seconds.
    """
    looks: list[tuple[int, int]] = []

    def drained() -> bool:
        with stage.sql() as sql:
            [(queued, recorded)] = sql.execute(_QUEUED)
        looks.append((queued, recorded))
        return looks[-1][0] == 0 and looks[-4:] == [looks[-1]] * 4

    eventually(drained, within=120, every=0.5, because="the flood's edits end")
    with stage.sql() as sql:
        for workspace in (data.WORKSPACE, WORKSPACE):
            [(applied, recorded)] = sql.execute(_APPLIED, [workspace])
            if applied != recorded:
                raise WrongMeasureError(f"{recorded - applied} edits of {workspace} ended otherwise than applied")


def _section(seen: dict[int, Beside]) -> Section:
    section = Section(13, TITLES[13])
    alone = seen[ALONE].at(95)
    section.header = [
        "beside",
        "p50",
        "p95 (least to most)",
        "its own alone",
        "the flood's answers a second",
        "of them",
    ]
    for flood, beside in seen.items():
        p95 = beside.at(95)
        ratio = p95.median / alone.median
        if flood != ALONE:
            section.goals.append(Goal(f"its p95 alone, beside {flood:,} connections", 2, ratio, at_least=False))
        total = beside.statuses.total()
        section.rows.append(
            [
                f"{flood:,} connections" if flood else "nobody",
                str(beside.at(50)),
                p95.full,
                f"{number(ratio)}x" if flood else "",
                str(Figure.of(beside.rates, "/s")) if beside.rates else "",
                ", ".join(f"{100 * count / total:.0f} % {one}" for one, count in sorted(beside.statuses.items())),
            ]
        )
    section.notes.append(
        "One PATCH a second on one connection; every one was answered 200, or the row would have failed. The flood is "
        "of one other workspace, with one request at a time on each connection; over its share it may get 202 and 503."
    )
    return section
