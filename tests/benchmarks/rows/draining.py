"""Rows 5 and 6: a worker alone with what is queued, 100,000 edits of as many posts, and 1,000 edits of one."""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.benchmarks import data, doorbells, parts
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Goal, Section, number
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.parts import Busy
from tests.benchmarks.rows import TITLES
from tests.processes import Process, Processes
from tests.waiting import eventually

EDITS_OF_ONE = 1_000
# At a tenth of the goal it would take 50 s.
DRAINED_WITHIN = 180
# All by the database's clock. Work starts with the first attempt that was counted.
_RESULTS = """
    SELECT count(*) FILTER (WHERE status = 'applied'), count(*),
           extract(epoch FROM max(finalized_at) - min(started_at))::float8
    FROM edits
"""
_MOVED = "SELECT count(*) FROM posts WHERE revision = 2"
_ORDER = """
    SELECT count(*) FILTER (WHERE status = 'applied'), coalesce(bool_and(revision = 1 + place), false),
           extract(epoch FROM max(finalized_at) - %(rung)s)::float8
    FROM (SELECT status, revision, finalized_at, row_number() OVER (ORDER BY seq) AS place
          FROM edits WHERE post_id = %(post)s) e
"""


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    template = bench.template()
    sections = []
    if 5 in numbers:
        sections.append(_row_5(bench, template))
    if 6 in numbers:
        sections.append(_row_6(bench, template))
    return sections


@contextmanager
def _worker(stage: Stage, **environment: str) -> Iterator[Process]:
    """`redraft worker --queues edits`, ended at the end whatever it does."""
    processes = Processes()
    argv = [sys.executable, "-m", "shared.cli.main", "worker", "--queues=edits"]
    try:
        yield processes.start(argv, **stage.environment, **environment)
    finally:
        processes.close()


def _drained(stage: Stage, worker: Process) -> None:
    """Wait until no doorbell is left. Redis is asked, and not the database, which is busy with what is measured."""

    def empty() -> bool:
        if not worker.running:
            raise WrongMeasureError(f"the worker ended with {worker.returncode}:\n{worker.output()[-4000:]}")
        with stage.redis() as client:
            return client.llen("edits") == 0 and client.hlen("unacked") == 0

    try:
        eventually(empty, within=DRAINED_WITHIN, every=0.2)
    except AssertionError as error:
        raise WrongMeasureError(f"doorbells are left after {DRAINED_WITHIN} s:\n{worker.output()[-4000:]}") from error


def _row_5(bench: Bench, template: str) -> Section:
    ids = [data.post_id(one) for one in range(1, data.POSTS + 1)]
    rates, cores = [], []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: {data.POSTS:,} edits of as many posts")
        # Clients do not send in the order of the ids.
        random.Random(turn).shuffle(ids)
        with bench.ground.turn(template) as stage:
            with stage.sql() as sql:
                data.queued_edits(sql, ids)
                sql.execute("VACUUM ANALYZE edits")
            rung = doorbells.ring(stage, ids)
            with _worker(stage, REDRAFT_EDITS_CONCURRENCY="1") as worker:
                busy = Busy()
                _drained(stage, worker)
                spent = busy.since()
            with stage.sql() as sql:
                [(applied, all_of_them, seconds)] = sql.execute(_RESULTS)
                [(moved,)] = sql.execute(_MOVED)
            if not applied == all_of_them == moved == data.POSTS:
                raise WrongMeasureError(f"{applied} of {all_of_them} edits were applied, {moved} posts moved")
            rates.append(applied / seconds)
            cores.append({part: used / seconds for part, used in spent.items()})
            bench.say(f"  {number(rates[-1])} edits/s, {rung} doorbells, {number(seconds)} s")
    rate = Figure.of(rates, "edits/s")
    section = Section(5, TITLES[5])
    section.goals.append(Goal("with one worker on one core", 20_000, rate.median, form="{} edits/s"))
    section.header = ["", "median (least to most)", "cores: worker", "cores: postgres"]
    used = (number(Figure.of(one.get(part, 0.0) for one in cores).median) for part in ("worker edits", "postgres"))
    section.rows.append(["`redraft worker --queues edits`, concurrency 1", rate.full, *used])
    section.notes.append(
        "The edits were put in by COPY, then rung for as rescue rings, 500 posts a doorbell. From the start of the "
        "first edit's work to the end of the last one's, by the database's clock. The worker has one pool "
        "process; its main "
        "process and PostgreSQL's use the other cores. Cores include the worker's start."
    )
    return section


def _row_6(bench: Bench, template: str) -> Section:
    times = []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: {EDITS_OF_ONE:,} edits of one post")
        with bench.ground.turn(template) as stage, _worker(stage) as worker:
            # One edit first, so that the worker is there and connected.
            _edit_one(stage, worker, data.post_id(1), 1)
            parts.quiet()
            times += [_edit_one(stage, worker, data.post_id(post), EDITS_OF_ONE) for post in range(2, 5)]
        bench.say(f"  {', '.join(number(seconds) for seconds in times[-3:])} s")
    took = Figure.of(times, "s")
    section = Section(6, TITLES[6])
    section.goals.append(Goal("in order", 1, took.median, at_least=False, form="{} s"))
    section.header = ["", "median (least to most)"]
    section.rows.append(["from the doorbell to the end of the last edit", took.full])
    section.notes.append("Three posts a round. Each edit's revision was checked: they were applied in their order.")
    return section


def _edit_one(stage: Stage, worker: Process, post_id: str, count: int) -> float:
    """Seconds from ringing for `count` edits of one post to the end of the last, by the database's clock."""
    with stage.sql() as sql:
        data.queued_edits(sql, [post_id] * count)
        [(rung,)] = sql.execute("SELECT clock_timestamp()")
    doorbells.ring(stage, [post_id])
    _drained(stage, worker)
    with stage.sql() as sql:
        [(applied, in_order, seconds)] = sql.execute(_ORDER, {"post": post_id, "rung": rung})
    if applied != count or not in_order:
        raise WrongMeasureError(f"{applied} of {count} edits of {post_id} were applied, in order: {in_order}")
    took: float = seconds
    return took
