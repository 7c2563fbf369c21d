"""Row 10: 10,000 posts that are due in the same minute, at a publisher that takes 200 ms for each."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from celery import Celery

from shared.local.datadir import free_port
from tests.benchmarks import contenders, data
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import PEERS, REDRAFT
from tests.benchmarks.figures import Figure, Goal, Section, number
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.parts import Busy
from tests.benchmarks.rows import TITLES
from tests.processes import Processes
from tests.waiting import eventually

DUE = 10_000
PUBLISHER_TAKES = 0.2
# Enough to start everything and to dispatch ahead, less than the horizon.
HEAD_START = 45
PUBLISHED_WITHIN = 240
STAMPS = "bench-stamps"

_MAKE_DUE = "UPDATE posts SET scheduled_time = %(at)s WHERE id <= %(last)s"
_POSTED = "SELECT count(*), extract(epoch FROM max(posted_at))::float8 FROM posts WHERE status = 'posted'"
_ATTEMPTS = "SELECT count(*), count(DISTINCT post_id) FROM publish_attempts"


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    template = bench.template()
    rates, lateness, tasks, cores = [], [], [], []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: {DUE:,} posts due at once")
        rate, late, used = _publish(bench, template)
        rates.append(rate)
        lateness.append(late)
        cores.append(used)
        bench.say(f"  {number(rate)} posts/s, late by p50 {number(late[50])} s, p99 {number(late[99])} s")
        tasks.append(_no_op_tasks(bench, template))
        bench.say(f"  plain Celery: {number(tasks[-1])} no-op tasks/s")
    published, no_op = Figure.of(rates, "posts/s"), Figure.of(tasks, "tasks/s")
    section = Section(10, TITLES[10])
    section.goals.append(Goal("plain Celery's no-op tasks a second", 1, published.median / no_op.median))
    section.header = ["", "median (least to most)"]
    section.rows += [
        ["posts published a second, from their time to the last one's end", published.full],
        ["no-op tasks a second, plain Celery's worker", no_op.full],
        *(
            [f"lateness {name}, from its time to the publisher's door", Figure.of((o[p] for o in lateness), "s").full]
            for name, p in (("p50", 50), ("p99", 99), ("of the last", 100))
        ),
        *(
            [f"cores: {part}", Figure.of(one.get(part, 0.0) for one in cores).full]
            for part in ("worker publish", "worker ops", "postgres", "valkey", "publisher")
        ),
    ]
    section.notes.append("The publisher was called once for each post, and each is posted.")
    return [section]


@contextmanager
def _publisher() -> Iterator[str]:
    processes = Processes()
    port = free_port()
    try:
        processes.start([sys.executable, "-m", "tests.benchmarks.publisher", str(port), str(PUBLISHER_TAKES)])
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: contenders.request(url, "GET", "/arrivals")[0] == 200, within=20)
        yield url
    finally:
        processes.close()


def _publish(bench: Bench, template: str) -> tuple[float, dict[int, float], dict[str, float]]:
    """Posts a second, by how many seconds the calls came late, by percentile, and the cores that each part used."""
    with bench.ground.turn(template) as stage, _publisher() as publisher:
        at = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        if (at - datetime.now(UTC)).total_seconds() < HEAD_START:
            at += timedelta(minutes=1)
        with stage.sql() as sql:
            sql.execute(_MAKE_DUE, {"at": at, "last": data.post_id(DUE)})
            sql.execute("VACUUM ANALYZE posts")
        with REDRAFT.running(stage, bench.folder, REDRAFT_PUBLISHER_URL=f"{publisher}/publish") as running:
            if datetime.now(UTC) >= at:
                raise WrongMeasureError("the posts came due before everything had started")
            eventually(lambda: datetime.now(UTC) >= at, within=120, every=0.1)
            busy = Busy()
            try:
                eventually(lambda: _posted(stage)[0] == DUE, within=PUBLISHED_WITHIN, every=1)
            except AssertionError as error:
                raise WrongMeasureError(
                    f"{_posted(stage)[0]} of {DUE} were posted in {PUBLISHED_WITHIN} s\n{running.processes.report()}"
                ) from error
            spent = busy.since()
        posted, ended = _posted(stage)
        with stage.sql() as sql:
            [(attempts, tried)] = sql.execute(_ATTEMPTS)
        _, arrivals = contenders.request(publisher, "GET", "/arrivals")
    called = {post_id for post_id, _, _ in arrivals}
    if not posted == attempts == tried == len(arrivals) == len(called) == DUE:
        raise WrongMeasureError(f"{posted} posted by {attempts} attempts and {len(arrivals)} calls for {len(called)}")
    took = ended - at.timestamp()
    late = sorted(came - at.timestamp() for _, _, came in arrivals)
    if late[0] < 0:
        raise WrongMeasureError(f"a post went out {-late[0]:.3f} s before its time")
    lateness = {percent: late[min(DUE - 1, DUE * percent // 100)] for percent in (50, 99, 100)}
    return DUE / took, lateness, {part: used / took for part, used in spent.items()}


def _posted(stage: Stage) -> tuple[int, float]:
    with stage.sql() as sql:
        [(posted, ended)] = sql.execute(_POSTED)
    return posted, ended


def _no_op_tasks(bench: Bench, template: str) -> float:
    """Tasks a second that plain Celery's worker runs when 10,000 of them wait and each does nothing."""
    processes = Processes()
    name = f"{PEERS}.plain_celery"
    argv = [sys.executable, "-m", "celery", f"--app={name}:celery", "--quiet", "worker", "--loglevel=warning"]
    try:
        with bench.ground.turn(template) as stage:
            with Celery("bench", broker=stage.redis_url, set_as_current=False) as app:
                for task in ("stamp", *["nothing"] * DUE, "stamp"):
                    app.send_task(f"{name}.{task}")
            worker = processes.start(argv, **stage.environment)
            with stage.redis() as client:
                try:
                    eventually(lambda: client.llen(STAMPS) == 2, within=PUBLISHED_WITHIN, every=0.2)
                except AssertionError as error:
                    raise WrongMeasureError(f"plain Celery did not end:\n{worker.output()[-4000:]}") from error
                first, last = sorted(float(one) for one in client.lrange(STAMPS, 0, -1))
    finally:
        processes.close()
    return DUE / (last - first)
