"""Rows 4 and 11 of docs/faults.md: everything of ours, then PostgreSQL, is restarted under load."""

import signal
import time

import pytest

from tests.faults.conftest import MakeHarness
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.load import Load
from tests.processes import Process, Server
from tests.waiting import eventually

GRACE = 45


def roll(harness: Harness, rounds: int) -> None:
    """Each process of ours gets a successor and then SIGTERM, one after the other."""
    posts = harness.populate()
    harness.start_api()
    workers: dict[str, Process] = {name: harness.start_worker(name) for name in ("ops", "publish")}
    workers["edits"] = harness.crashing_worker()
    beat = harness.start_beat()
    with harness.load(posts) as load:
        for number in range(rounds):
            harness.send(posts[5], {"caption": f"linger-8 {number}"}, f"linger-{number}", Prefer="respond-async")
            eventually(lambda: "struck linger-8" in workers["edits"].output(), within=30)
            for name, old in workers.items():
                workers[name] = harness.crashing_worker() if name == "edits" else harness.start_worker(name)
                _leave(harness, old, load)
                assert old.returncode == 0, old.output()[-2000:]
            old_api = harness.api
            assert old_api is not None
            harness.start_api()
            # As behind a balancer: who asks now asks the successor; who had asked before is answered.
            turned = load.accepted
            eventually(lambda turned=turned: load.accepted > turned + 30, within=30)
            _leave(harness, old_api, load)
            assert old_api.returncode in (0, -signal.SIGTERM), old_api.output()[-2000:]
            successor = harness.start_beat()
            assert beat.stop(within=GRACE) == 0
            beat = successor
    # A restart is nobody's outage: each request had its answer.
    assert {one.error for one in load.exchanges if one.status is None} == set()
    assert {one.status for one in load.exchanges} <= {200, 202, 400, 412}
    harness.drained(within=2 * RESCUE_PERIOD)
    assert harness.locks_left() == []
    harness.judge()


def _leave(harness: Harness, process: Process, load: Load) -> None:
    before, started = load.accepted, time.monotonic()
    process.stop(within=GRACE)
    harness.note(f"{process.name} left in {time.monotonic() - started:.1f} s")
    eventually(lambda: load.accepted > before, within=30, because="clients are still answered")


@pytest.mark.faults
def test_row_04_a_rolling_restart_loses_no_edit_and_no_request_and_leaves_no_lock(harness: Harness) -> None:
    roll(harness, 2)


def restart_postgres(harness: Harness, postgres: Server, rounds: list[int]) -> None:
    """PostgreSQL is shut down while a worker sits between writing and COMMIT, and started again."""
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    with harness.load(posts) as load:
        for number, how in enumerate(rounds):
            harness.send(posts[5], {"caption": f"slow {number}"}, f"slow-{number}", Prefer="respond-async")
            eventually(lambda n=number: worker.output().count("struck slow") > n, within=30)
            postgres.process.signal(how)
            postgres.process.wait(within=30)
            harness.note(f"PostgreSQL was ended by {signal.Signals(how).name}")
            down = harness.send(posts[6], {"caption": "down"}, f"down-{number}", Prefer="respond-async")
            assert (down.status, "retry-after" in down.headers) == (503, True), down
            assert down.answered is not None
            assert down.answered - down.sent < 6, "503 comes promptly"
            postgres.start()
            harness.note("PostgreSQL is back")
            before = load.accepted
            eventually(
                lambda before=before: load.accepted > before + 10, within=60, because="clients are answered again"
            )
            again = harness.send(posts[7], {"caption": f"{number}"}, f"again-{number}", Prefer="wait=30")
            assert again.status == 200, again
    assert worker.running
    harness.drained(within=3 * RESCUE_PERIOD)
    assert harness.locks_left() == []
    harness.judge()


@pytest.fixture
def postgres_harness(make_harness: MakeHarness, own_postgres: Server, redis_url: str) -> Harness:
    return make_harness(own_postgres.url, redis_url)


@pytest.mark.faults
def test_row_11_postgresql_restarted_under_load_loses_no_edit(postgres_harness: Harness, own_postgres: Server) -> None:
    """Fast (sessions are told) and immediate (it dies, and recovers from its log)."""
    restart_postgres(postgres_harness, own_postgres, [signal.SIGINT, signal.SIGQUIT, signal.SIGINT, signal.SIGQUIT])
