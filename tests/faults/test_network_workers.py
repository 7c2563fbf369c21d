"""A bad network between a worker and PostgreSQL or Redis: the workers that call others, move thousands, and go rounds.

tests/faults/test_network.py strikes the API and the workers for edits. Here the one worker of a queue is behind the
bad way, ops together with its beat; all others, and the services that it calls, have a sound one.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from shared.settings import Settings
from shared.store.db import OVERTIME
from tests.faults.behind import LONG, RECOVERED, bad_way, through
from tests.faults.duties import DUTIES, Duty, nobody_holds_anything
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.proxy import BOTH, Proxy
from tests.processes import Process
from tests.reference_services.client import Reference
from tests.waiting import eventually

SERVERS = ("postgresql", "redis")
CLAIM_EXPIRY = 15.0
# What a half-open connection holds, it holds until its answer is no longer waited for; then a claim that was taken by
# it expires, and rescue comes by, at the second time perhaps. Or Redis was lost, which has a bound of its own.
WITHIN = max(RECOVERED, Settings().transaction_timeout + OVERTIME + CLAIM_EXPIRY + 2 * RESCUE_PERIOD)


@pytest.fixture
def reference(harness: Harness) -> Reference:
    """Services that take their time, so that calls are under way whenever something strikes."""
    reference = Reference(harness.processes)
    reference.behave({"mode": "late", "seconds": 0.15})
    harness.environment |= reference.environment | {
        "REDRAFT_SERVICE_TIMEOUT": "5",
        "REDRAFT_CLAIM_EXPIRY": str(CLAIM_EXPIRY),
    }
    return reference


@dataclass(frozen=True)
class Behind:
    """A worker behind a network that can be struck, and what it has to do."""

    harness: Harness
    proxy: Proxy
    worker: Process
    duty: Duty

    def lasts(self, seconds: float, every: float = 0.25) -> None:
        """So much time goes by, and more work comes in every so often."""
        until = time.monotonic() + seconds

        def over() -> bool:
            self.duty.more()
            return time.monotonic() > until

        eventually(over, within=seconds + 20, every=every)

    def ends(self, within: float = WITHIN) -> None:
        """All of it is done, from now on within that time."""
        began = time.monotonic()

        def done() -> bool:
            self.duty.done()
            return True

        eventually(done, within=within, every=0.1, because="all of it is done")
        self.harness.note(f"all of it was done in {time.monotonic() - began:.1f} s")

    def judged(self) -> None:
        assert self.worker.running, "a worker must outlive its network"
        nobody_holds_anything(self.harness)
        self.duty.judged()


@contextmanager
def behind(harness: Harness, reference: Reference, queue: str, where: str) -> Iterator[Behind]:
    """The worker of a queue behind a bad way to one of its servers."""
    if queue == "webhooks":
        harness.environment |= reference.webhooks
    duty = DUTIES[queue](harness, reference)
    if duty.needs_api:
        harness.start_api()
    for name in duty.beside:
        harness.start_worker(name)
    with bad_way(harness, where) as proxy:
        with through(harness, proxy, where):
            worker = harness.start_worker(queue)
            if queue == "ops":
                harness.start_beat()
        if queue != "ops":
            harness.start_ops()
        yield Behind(harness, proxy, worker, duty)


def cut(harness: Harness, reference: Reference, queue: str, where: str, rounds: int) -> None:
    rng = random.Random(harness.seed)
    with behind(harness, reference, queue, where) as at:
        with at.duty.under_way():
            for _ in range(rounds):
                reset = rng.random() < 0.5
                eventually(lambda: at.proxy.open > 0, within=30, because="it has connected again")
                harness.note(f"cut {at.proxy.cut(reset=reset)} connections by {'RST' if reset else 'FIN'}")
                at.lasts(rng.uniform(0.2, 1.0))
        at.ends()
        at.judged()


def half_open(harness: Harness, reference: Reference, queue: str, where: str, seconds: float) -> None:
    with behind(harness, reference, queue, where) as at:
        with at.duty.under_way():
            at.proxy.swallow(BOTH)
            harness.note("half-open: nothing comes up or down")
            at.lasts(seconds)
            assert at.proxy.swallowed["up"] > 0
            at.proxy.heal()
            harness.note(f"healed; {dict(at.proxy.swallowed)} bytes were swallowed")
        at.ends()
        at.judged()


def test_network_cut_connections_of_the_publishing_worker_to_postgresql_publish_once(
    harness: Harness, reference: Reference
) -> None:
    cut(harness, reference, "publish", "postgresql", 3)


@pytest.mark.faults
@pytest.mark.parametrize("where", SERVERS)
@pytest.mark.parametrize("queue", DUTIES)
def test_network_a_worker_cut_off_again_and_again_does_its_work_once(
    harness: Harness, reference: Reference, queue: str, where: str
) -> None:
    cut(harness, reference, queue, where, 8)


@pytest.mark.faults
@pytest.mark.parametrize("where", SERVERS)
@pytest.mark.parametrize("queue", DUTIES)
def test_network_a_worker_200_ms_from_its_server_each_way_does_its_work_once(
    harness: Harness, reference: Reference, queue: str, where: str
) -> None:
    with behind(harness, reference, queue, where) as at:
        with at.duty.under_way():
            passed = at.proxy.passed["up"]
            at.proxy.delay(0.2)
            harness.note("each chunk takes 200 ms, either way")
            # Less work: a transaction takes a second or two, and so does Celery for each message, one by one.
            at.lasts(8, every=2)
            assert at.proxy.passed["up"] > passed
        # Slow, and no more: nothing has to heal before it is done.
        at.ends()
        at.proxy.heal()
        at.judged()


@pytest.mark.faults
@pytest.mark.parametrize("where", SERVERS)
@pytest.mark.parametrize("queue", DUTIES)
def test_network_a_half_open_connection_of_a_worker_costs_time_and_no_work(
    harness: Harness, reference: Reference, queue: str, where: str
) -> None:
    half_open(harness, reference, queue, where, 8)


@pytest.mark.faults
@pytest.mark.parametrize("where", SERVERS)
@pytest.mark.parametrize("queue", DUTIES)
def test_network_a_connection_half_open_for_longer_than_every_time_out_costs_no_work(
    harness: Harness, reference: Reference, queue: str, where: str
) -> None:
    half_open(harness, reference, queue, where, LONG)
