"""The faults of docs/faults.md that concern connections, through a real PgBouncer: `make pgbouncer`.

tests/deployment/real_pgbouncer.py says what it needs.
"""

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.deployment.real_pgbouncer import Pooler, pooler
from tests.deployment.standby import both, promote, standby_of
from tests.faults.conftest import MakeHarness
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.processes import Server, data_dir
from tests.waiting import eventually

CUT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""


@pytest.fixture
def bouncer(own_postgres: Server) -> Iterator[Pooler]:
    database = own_postgres.url.rpartition("/")[2]
    # As `nobody` it reads its file once more when it is told to. pytest's own folders are closed to that user.
    with data_dir() as data, pooler(own_postgres.server, database, data.path / "etc") as made:  # type: ignore[arg-type]
        yield made


def pooled(make_harness: MakeHarness, own_postgres: Server, bouncer: Pooler, redis_url: str, direct: str) -> Harness:
    """A harness whose processes go through the pooler, with the load's posts; the harness itself looks past it."""
    harness = make_harness(direct, redis_url)
    harness.environment |= {"REDRAFT_DATABASE_URL": bouncer.url, "REDRAFT_DATABASE_DIRECT_URL": direct}
    harness.start_api().start_ops()
    harness.start_worker("edits")
    return harness


def pooler_is_killed(harness: Harness, postgres: Server, bouncer: Pooler) -> None:
    bouncer.restart()


def its_connections_are_cut(harness: Harness, postgres: Server, bouncer: Pooler) -> None:
    assert harness.scalar(CUT)


def postgresql_restarts(harness: Harness, postgres: Server, bouncer: Pooler) -> None:
    postgres.process.signal(signal.SIGINT)
    postgres.process.wait(within=30)
    postgres.start()


def postgresql_dies(harness: Harness, postgres: Server, bouncer: Pooler) -> None:
    postgres.process.signal(signal.SIGQUIT)
    postgres.process.wait(within=30)
    postgres.start()


STRIKES = (pooler_is_killed, its_connections_are_cut, postgresql_restarts, postgresql_dies)


def test_row_11_connections_through_a_pooler_end_and_no_edit_is_lost(
    make_harness: MakeHarness, own_postgres: Server, bouncer: Pooler, redis_url: str
) -> None:
    harness = pooled(make_harness, own_postgres, bouncer, redis_url, own_postgres.url)
    with harness.load(harness.populate()) as load:
        for strike in STRIKES:
            struck: Callable[[Harness, Server, Pooler], None] = strike
            struck(harness, own_postgres, bouncer)
            harness.note(strike.__name__)
            before = load.accepted
            eventually(lambda before=before: load.accepted > before + 30, within=60, because="all connect again")
    assert {one.status for one in load.exchanges} <= {200, 202, 400, 412, 503}
    harness.drained(within=3 * RESCUE_PERIOD)
    eventually(lambda: harness.locks_left() == [], within=10, because="no transaction is left idle")
    harness.judge()


def test_row_28_the_pooler_turns_to_the_promoted_standby(
    make_harness: MakeHarness, own_postgres: Server, bouncer: Pooler, redis_url: str
) -> None:
    with standby_of(own_postgres, synchronous=True) as standby:
        harness = pooled(make_harness, own_postgres, bouncer, redis_url, both(own_postgres, standby))
        with harness.load(harness.populate()) as load:
            own_postgres.process.kill_tree()
            eventually(lambda: any(one.status == 503 for one in list(load.exchanges)), within=30)
            promote(standby)
            bouncer.turn_to(standby.server.port)
            harness.note("the pooler knows the other server")
            before = load.accepted
            eventually(lambda: load.accepted > before + 30, within=60, because="all go to the new primary")
        harness.drained(within=3 * RESCUE_PERIOD)
        harness.judge()
