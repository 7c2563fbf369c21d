"""`python -m tests.soak`: what `make soak` runs. A stack under load and faults, then the oracle, then a report.

make soak                                                # 100,000 edits, 15 minutes at most
make soak EDITS=1000000 ARGS="--minutes 60 --seed 7"
make soak ARGS=--opponent                                # with a publisher that plays against us
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psycopg

from tests.benchmarks.ground import IN_MEMORY, filesystem, forget_environment
from tests.soak import holds, report, stack, verdict
from tests.soak.clients import Clients
from tests.soak.holds import Holds
from tests.soak.jobs import Jobs
from tests.soak.log import Log
from tests.soak.operators import look_after, operators
from tests.soak.posts import DUE_EVERY, Posts
from tests.soak.report import Run
from tests.soak.stack import Stack
from tests.soak.strikes import Strikes
from tests.soak.watch import Watch

HERE = Path(__file__).parent
# /tmp is kept in memory on many systems; this one survives restarts and so lies on a disk.
FOLDER = Path("/var/tmp")  # noqa: S108 - a folder of our own is made in it, by mkdtemp
LOOK_EVERY = 5.0
QUIET_WITHIN = 300.0
# A post that is claimed, to be rendered or due soon.
_POST_UNDER_WAY = """claim_kind IS NOT NULL OR status = 'pending_render'
    OR (status = 'generated' AND scheduled_time < now() + interval '3 minutes')"""
# Nothing under way: no edit queued, no such post, no job at work.
_UNDER_WAY = f"""
    SELECT (SELECT count(*) FROM edits WHERE status = 'queued'),
           (SELECT count(*) FROM posts WHERE {_POST_UNDER_WAY})
           + (SELECT count(*) FROM reschedules WHERE status IN ('queued', 'running'))
"""
_LEFT_OVER = f"""
    SELECT row_to_json(p)::text FROM (
        SELECT id, status, claim_kind, claim_expires_at, retry_at, enqueued_at, scheduled_time, schedule_revision,
               enqueued_revision, deleted_at, now() AS now, (
            SELECT jsonb_agg(jsonb_build_array(try_number, started_at, finished_at, outcome,
                                               claim_token = posts.claim_token) ORDER BY try_number)
            FROM publish_attempts a WHERE a.post_id = posts.id) AS tries
        FROM posts WHERE {_POST_UNDER_WAY}
        ORDER BY scheduled_time LIMIT 20) p
"""
"""What stands in the way of rest, and all that its rows say."""


def main() -> int:
    options = _parse()
    forget_environment()
    signal.signal(signal.SIGTERM, _stop)
    if (kind := filesystem(options.folder)) in IN_MEMORY:
        print(f"{options.folder} is kept in memory ({kind}); give a folder on a disk with --folder", file=sys.stderr)
        return 2
    print(f"seed {options.seed} (repeat it with --seed {options.seed})", flush=True)
    with stack.running(options.folder, options.seed if options.opponent else None) as running:
        run = asyncio.run(_soak(running, options))
        print("judging", flush=True)
        run.surprises = running.surprises()
        if running.opponent is None:
            run.verdict = verdict.reach(running.engine, run.posts.first, run.log, running.reference.calls("publish"))
        else:
            said = run.door
            run.verdict = verdict.reach(running.engine, run.posts.first, run.log, said["calls"], said["effects"])
        run.verdict.add(holds.judge(running.engine, run.holds.periods, run.holds.releases, run.calmed))
        told = report.machine(running)
    options.output.write_text(report.render(run, told), encoding="utf-8")
    print(report.summary(run))
    if run.verdict.story:
        print(run.verdict.story[:20_000])
    return 0 if run.clean else 1


async def _soak(running: Stack, options: argparse.Namespace) -> Run:
    """The load with all that strikes it, until it has run empty again."""
    posts = Posts(running.engine)
    posts.make()
    log = Log(running.folder / "log")
    clients = Clients(running.api_port, posts, log, options.seed, options.clients, options.edits)
    over = clients.over
    rng = random.Random(f"{options.seed}/strikes")
    jobs = Jobs(running.api_port, random.Random(f"{options.seed}/jobs"), over)
    strikes = Strikes(
        running.up.pid, running.redis_url, running.dsn, posts, running.reference, rng, over, running.opponent
    )  # fmt: skip
    holding = Holds(running.api_port, running.dsn, posts, random.Random(f"{options.seed}/holds"), over)
    watch = Watch(running.up.pid, running.redis_url, running.dsn, clients.tally)
    run = Run(options, posts, log, clients.tally, jobs, strikes, watch, holding)
    asyncio.get_running_loop().call_later(options.minutes * 60, over.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(clients.run())
        group.create_task(jobs.run())
        group.create_task(strikes.run())
        group.create_task(holding.run())
        group.create_task(_look(watch, over))
        group.create_task(_more_due_posts(posts, over))
        if running.opponent is not None:
            group.create_task(operators(running, random.Random(f"{options.seed}/operators"), over))
        await over.wait()
        run.seconds = clients.tally.seconds
    log.close()
    await asyncio.to_thread(_run_empty, running, run)
    watch.look()
    if running.opponent is not None:
        # Now: a process that was started in one of this loop's threads ends with that thread.
        run.door = await asyncio.to_thread(running.opponent.journal)
    return run


async def _look(watch: Watch, over: asyncio.Event) -> None:
    while not over.is_set():
        sample = await asyncio.to_thread(watch.look)
        print(f"{sample.at:7.1f} s  {sample.accepted:,} accepted, {sample.queued} queued", flush=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), LOOK_EVERY)


async def _more_due_posts(posts: Posts, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.to_thread(posts.make_due)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), DUE_EVERY)


def _run_empty(running: Stack, run: Run) -> None:
    """Wait until the queue is empty, and then until nothing at all is under way; how long either took."""
    began, run.calmed = time.monotonic(), datetime.now(UTC)
    if running.opponent is not None:
        running.opponent.calm()
    while run.quiet is None and time.monotonic() < began + QUIET_WITHIN:
        try:
            with psycopg.connect(running.dsn, connect_timeout=5) as connection:
                queued, others = connection.execute(_UNDER_WAY).fetchone() or (1, 1)
        except psycopg.Error:
            queued, others = 1, 1
        if others:
            holds.release(running)
        if running.opponent is not None:
            others += look_after(running, share=1.0)
        if not queued and run.drained is None:
            run.drained = time.monotonic() - began
            print(f"the queue of edits is empty {run.drained:.1f} s after the last edit", flush=True)
        if not queued and not others:
            run.quiet = time.monotonic() - began
        time.sleep(0.25)  # how often it is asked
    if run.quiet is None:
        with psycopg.connect(running.dsn, connect_timeout=5) as connection:
            run.left_over = [row for (row,) in connection.execute(_LEFT_OVER)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000, help="stop when so many were accepted")
    parser.add_argument("--minutes", type=float, default=15, help="stop then, however many there are")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the load and of the faults")
    parser.add_argument("--opponent", action="store_true", help="publish with a publisher that plays against us")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the servers keep their data; on a disk")
    parser.add_argument("--output", type=Path, default=HERE / "REPORT.md")
    return parser.parse_args()


def _stop(number: int, _: FrameType | None) -> None:
    """SIGTERM ends us as Ctrl-C does: by way of everything that has to be stopped."""
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
