"""Row 29 of docs/faults.md: two API hosts and three worker hosts, whose links are cut and delayed: `make namespaces`.

Needs root, Linux, and `ip`, `unshare`, `iptables` on PATH. So `make test` leaves it out, by its name.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from shared.local import commands
from shared.local.postgres import PostgreSQL
from tests.deployment.namespaces import Host, enter
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.load import Load
from tests.faults.publishing import due, judged, posted, reference
from tests.loopback import LOOPBACK
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]

WORKERS = {"worker-1": ("edits", "ops"), "worker-2": ("edits", "publish"), "worker-3": ("publish", "ops")}
API_PORT = 8000
STRIKES = ("cut", "mute", "deafen", "delay")
LENGTHS = (2.0, 2.0, 9.0)
"""Seconds. Nine is longer than a session of ours may sit in an open transaction."""


@pytest.fixture(scope="session", autouse=True)
def _here() -> None:
    enter()


def hosts_of(harness: Harness, reference: Reference, postgres: PostgreSQL) -> dict[str, Host]:
    """Two API hosts and three worker hosts, each with its processes, which all answer."""
    with (postgres.folder / "pg_hba.conf").open("a") as file:
        file.write("host all all 198.18.0.0/15 scram-sha-256\n")
    harness.scalar("SELECT pg_reload_conf()")
    urls = [harness.environment[f"REDRAFT_{name}_URL"] for name in ("DATABASE", "REDIS")]
    ports = [int(urlsplit(url).port or 0) for url in (*urls, reference.url)]
    hosts = {
        name: Host(harness.processes, name, number) for number, name in enumerate(("api-1", "api-2", *WORKERS), start=1)
    }
    ready = []
    for name, host in hosts.items():
        for port in ports:
            host.reaches(port)
        if name in WORKERS:
            ready += [host.start(commands.worker(queue, name=name), harness.environment) for queue in WORKERS[name]]
            host.start(commands.beat(), harness.environment)
        else:
            host.start(commands.api(host="0.0.0.0", port=API_PORT), harness.environment)  # noqa: S104 - its own namespace
    for worker in ready:
        worker.says("ready.", within=60)
    for name in ("api-1", "api-2"):
        eventually(lambda host=hosts[name]: answers(host), within=60, because=f"{name} answers")
    return hosts


def answers(host: Host) -> bool:
    try:
        return httpx.get(f"http://{host.address}:{API_PORT}/readyz", timeout=1, **LOOPBACK).status_code == 200
    except httpx.TransportError:
        return False


def test_row_29_links_are_cut_and_delayed_and_the_reachable_side_goes_on(
    harness: Harness, reference: Reference, postgres: PostgreSQL
) -> None:
    hosts = hosts_of(harness, reference, postgres)
    chance = random.Random(harness.seed)
    struck: set[str] = set()
    posts, now = harness.populate(), datetime.now(UTC)
    going = [due(harness, scheduled_time=now + timedelta(seconds=2 * n))[0] for n in range(30)]

    def balancer() -> str:
        """The address of an API that can be reached, as its health checks say; now and then they are wrong."""
        names = [name for name in ("api-1", "api-2") if name not in struck or chance.random() < 0.02]
        return f"http://{hosts[chance.choice(names)].address}:{API_PORT}"

    load = Load(balancer, posts, harness.seed, clients=10)
    harness.loads.append(load)
    with load:
        eventually(lambda: load.accepted > 50, within=60, because="the load is under way")
        for strike, length in [(strike, length) for length in LENGTHS for strike in STRIKES]:
            struck = {chance.choice(("api-1", "api-2")), chance.choice(list(WORKERS))}
            struck = set(chance.sample(sorted(struck), chance.choice((1, 2))))
            until, before = time.monotonic() + length, applied(load)
            for name in struck:
                getattr(hosts[name], strike)()
            harness.note(f"{strike} {sorted(struck)} for {length} s")
            for name in struck & {"api-1", "api-2"}:
                assert strike == "delay" or not answers(hosts[name]), "it was cut off"
            eventually(
                lambda before=before: applied(load) > before + 10, within=30, because="the reachable side goes on"
            )
            time.sleep(max(0.0, until - time.monotonic()))  # how long it lasts
            for name in struck:
                hosts[name].heal()
            struck = set()
        harness.note("all links are whole")
    posted(harness, *going, within=90)
    harness.drained(within=4 * RESCUE_PERIOD)
    judged(harness, reference)
    assert load.accepted > 500


def applied(load: Load) -> int:
    return sum(one.status == 200 for one in list(load.exchanges))
