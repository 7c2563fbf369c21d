"""Rows 7 and 8: one job that shifts 100,000 posts, and single edits meanwhile."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery

from tests.benchmarks import contenders, data, load
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders import PEERS, REDRAFT, Running
from tests.benchmarks.figures import Figure, Goal, Section, number, share
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Load, Wrk
from tests.benchmarks.rows import TITLES
from tests.processes import Processes
from tests.waiting import eventually

SHIFT, BACK = "PT24H", "-PT24H"
SECONDS_SHIFTED = 24 * 3600
CELERY_POSTS = 3_000
ENDED_WITHIN = 300
COVERED = 0.9

# What the job does to the rows, without asking, checking or writing anything down.
_BARE = """
    UPDATE posts SET scheduled_time = scheduled_time + interval '24 hours', revision = revision + 1,
        schedule_revision = schedule_revision + 1
    WHERE workspace_id = %s AND status IN ('generated', 'pending_render') AND deleted_at IS NULL
"""
_TIMES = "SELECT sum(extract(epoch FROM scheduled_time))::bigint, sum(schedule_revision)::bigint FROM posts"
_AUDIT = "SELECT count(*) FROM edits WHERE status = 'applied'"
_ONE_BY_ONE = "SELECT count(*), extract(epoch FROM max(finalized_at) - min(created_at))::float8 FROM edits"


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    template = bench.template()
    sections = []
    if 7 in numbers:
        sections.append(_row_7(bench, template))
    if 8 in numbers:
        sections.append(_row_8(bench, template))
    return sections


def _start(running: Running, shift: str) -> str:
    """The id of a new job that shifts every waiting post."""
    body = {"filter": {"all": True}, "shift": shift}
    status, job = contenders.request(running.url, "POST", "/v1/reschedules", body)
    if status != 202:
        raise WrongMeasureError(f"POST /v1/reschedules was answered {status}: {job}")
    job_id: str = job["id"]
    return job_id


def _state(running: Running, job_id: str) -> dict[str, Any]:
    status, job = contenders.request(running.url, "GET", f"/v1/reschedules/{job_id}")
    if status != 200:
        raise WrongMeasureError(f"GET /v1/reschedules/{job_id} was answered {status}: {job}")
    found: dict[str, Any] = job
    return found


def _end(running: Running, job_id: str, within: float = ENDED_WITHIN) -> dict[str, Any]:
    """The job when it is done, with every post applied."""

    def ended() -> dict[str, Any] | None:
        job = _state(running, job_id)
        return job if job["status"] not in ("queued", "running") else None

    job = eventually(ended, within=within, every=0.05, because=f"job {job_id} ends")
    if (job["status"], job["applied"], job["skipped"], job["failed"]) != ("done", data.POSTS, 0, 0):
        raise WrongMeasureError(f"the job did not move every post: {job}")
    return job


def _job(bench: Bench, template: str) -> float:
    """Seconds from the POST to the job's end, as its client sees it."""
    with bench.ground.turn(template) as stage, REDRAFT.running(stage, bench.folder) as running:
        with stage.sql() as sql:
            [(times, revisions)] = sql.execute(_TIMES)
            [(audit,)] = sql.execute(_AUDIT)
        began = time.monotonic()
        _end(running, _start(running, SHIFT))
        took = time.monotonic() - began
        with stage.sql() as sql:
            [(times_after, revisions_after)] = sql.execute(_TIMES)
            [(audit_after,)] = sql.execute(_AUDIT)
    written = audit_after - audit
    moved = (times_after - times) / SECONDS_SHIFTED
    if not moved == revisions_after - revisions == written == data.POSTS:
        raise WrongMeasureError(f"times moved {moved}, revisions {revisions_after - revisions}, audit rows {written}")
    return took


def _bare(bench: Bench, template: str) -> float:
    with bench.ground.turn(template) as stage, stage.sql() as sql:
        began = time.monotonic()
        moved = sql.execute(_BARE, [data.WORKSPACE]).rowcount
        took = time.monotonic() - began
    if moved != data.POSTS:
        raise WrongMeasureError(f"the bare UPDATE moved {moved} posts")
    return took


def _one_by_one(bench: Bench, template: str) -> float:
    """Posts a second that plain Celery moves, one task each, from the first one's start to the last one's end."""
    processes = Processes()
    name = f"{PEERS}.plain_celery"
    argv = [sys.executable, "-m", "celery", f"--app={name}:celery", "--quiet", "worker", "--loglevel=warning"]
    try:
        with bench.ground.turn(template) as stage:
            worker = processes.start(argv, **stage.environment)
            with Celery("bench", broker=stage.redis_url, set_as_current=False) as app:
                for post in range(1, CELERY_POSTS + 1):
                    app.send_task(f"{name}.move", args=[data.post_id(post), SECONDS_SHIFTED])
            _await_audit(stage, CELERY_POSTS, worker.output)
            with stage.sql() as sql:
                [(count, seconds)] = sql.execute(_ONE_BY_ONE)
    finally:
        processes.close()
    rate: float = count / seconds
    return rate


def _await_audit(stage: Stage, count: int, output: Callable[[], str]) -> None:
    def written() -> bool:
        with stage.sql() as sql:
            [(audit,)] = sql.execute(_AUDIT)
        return bool(audit == count)

    try:
        eventually(written, within=ENDED_WITHIN, every=0.5)
    except AssertionError as error:
        raise WrongMeasureError(f"plain Celery did not move {count} posts:\n{output()[-4000:]}") from error


def _row_7(bench: Bench, template: str) -> Section:
    jobs, updates, celery = [], [], []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: shift of {data.POSTS:,} posts")
        jobs.append(_job(bench, template))
        updates.append(_bare(bench, template))
        bench.say(f"  job {number(jobs[-1])} s, bare UPDATE {number(updates[-1])} s")
        celery.append(_one_by_one(bench, template))
        bench.say(f"  plain Celery {number(celery[-1])} posts/s")
    job, bare, one_by_one = Figure.of(jobs, "s"), Figure.of(updates, "s"), Figure.of(celery, "posts/s")
    rate = data.POSTS / job.median
    section = Section(7, TITLES[7])
    section.goals.append(share("of one bare UPDATE of the same rows", 0.4, bare.median / job.median))
    section.goals.append(Goal("plain Celery per post", 100, rate / one_by_one.median))
    section.header = ["", "median (least to most)", "posts/s"]
    section.rows += [
        ["`POST /v1/reschedules` to the job's end", job.full, number(rate)],
        ["one bare `UPDATE`, same rows, same indexes, no audit rows", bare.full, number(data.POSTS / bare.median)],
        [f"plain Celery, a task a post ({CELERY_POSTS:,} posts)", one_by_one.full, number(one_by_one.median)],
    ]
    section.notes.append("Every post was moved by 24 hours, once, and has its audit row.")
    return section


def _while_running(bench: Bench, running: Running) -> tuple[Load, float, int]:
    """One client's edits while jobs run, which part of that time jobs ran in, and how many posts they moved."""
    generator = Wrk(running.url, clients=1, seconds=bench.options.seconds)
    covered, jobs, shift = 0.0, [], SHIFT
    began = time.monotonic()
    try:
        while generator.running:
            started = time.monotonic()
            jobs.append(_start(running, shift))
            eventually(
                lambda job=jobs[-1]: _ended_or_over(running, job, generator), within=ENDED_WITHIN, every=0.1
            )  # fmt: skip
            covered += time.monotonic() - started
            shift = BACK if shift == SHIFT else SHIFT
        told = generator.result()
    finally:
        generator.close()
    share_of_it = covered / (time.monotonic() - began)
    moved = sum(_end(running, job_id)["applied"] for job_id in jobs)
    return told, share_of_it, moved


def _ended_or_over(running: Running, job_id: str, generator: Wrk) -> bool:
    return not generator.running or _state(running, job_id)["status"] not in ("queued", "running")


def _row_8(bench: Bench, template: str) -> Section:
    idle, busy = [], []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: single edits beside a bulk job")
        with bench.ground.turn(template) as stage, REDRAFT.running(stage, bench.folder) as running:
            load.patch(running.url, clients=1, seconds=bench.options.warm_up)
            ledger = Ledger(stage)
            idle.append(load.patch(running.url, clients=1, seconds=bench.options.seconds))
            idle[-1].must_be(200)
            ledger.close(idle[-1])
            ledger = Ledger(stage)
            told, covered, moved = _while_running(bench, running)
            told.must_be(200)
            ledger.close(told, moved_by_jobs=moved)
            busy.append(told)
        if covered < COVERED:
            raise WrongMeasureError(f"a job ran in only {covered:.0%} of the time in which edits were measured")
        bench.say(f"  p95 idle {number(idle[-1].at(95))} ms, beside a job {number(told.at(95))} ms")
    section = Section(8, TITLES[8])
    ratio = Figure.of(one.at(95) for one in busy).median / Figure.of(one.at(95) for one in idle).median
    section.goals.append(Goal("idle p95", 2, ratio, at_least=False))
    section.header = ["one client", "p50", "p95", "p99", "edits/s"]
    for name, loads in (("nothing else runs", idle), ("a bulk job runs", busy)):
        latencies = (Figure.of((one.at(percent) for one in loads), "ms").full for percent in (50, 95, 99))
        section.rows.append([name, *latencies, Figure.of(one.rate for one in loads).full])
    section.notes.append(
        "Jobs of 100,000 posts were started one after the other for as long as the edits were measured."
    )
    return section
