"""A bad network between our processes and their servers, and between a client and the API.

Cut, slow and half-open, with real sockets, under load. Half-open is the worst of them: the sockets stay up, nothing
arrives, no keep-alive tells, and what fell into the hole never comes, healed or not (tests/faults/proxy.py).
"""

import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.submission.waiting import SILENCE
from shared.settings import Settings
from shared.store import db
from tests.faults.behind import LONG, RECOVERED, bad_way, through
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.load import Load
from tests.faults.proxy import BOTH, Proxy, Way
from tests.processes import Process
from tests.waiting import eventually

LINKS = ("api-postgresql", "api-redis", "workers-postgresql", "workers-redis")
# An edit that waits for nothing: two seconds for the key, two for the row, and what the machine may add.
PROMPT = 6.0
# The longest that a client of the load asks to wait, and the same for the machine.
LONGEST = 24.0


@dataclass(frozen=True)
class Behind:
    """A running stack of which one side is behind a network that can be struck."""

    link: str
    harness: Harness
    proxy: Proxy
    posts: list[str]
    worker: Process

    def keeps_answering(self, seconds: float) -> None:
        """For so long, edits that wait for nothing are answered in time, and truly."""
        until = time.time() + seconds
        while time.time() < until:
            name = f"struck-{time.time()}"
            answer = self.harness.send(self.posts[6], {"caption": name}, name, Prefer="respond-async")
            assert answer.status == 202 or (
                self.link == "api-postgresql" and answer.status == 503 and "retry-after" in answer.headers
            ), answer
            assert (answer.answered or 0) - answer.sent < PROMPT, answer
            time.sleep(0.2)

    def recovers(self, within: float = RECOVERED) -> None:
        """An edit is applied while its client waits, as if nothing had been."""
        began = time.time()

        def answered() -> bool:
            name = f"again-{time.time()}"
            return self.harness.send(self.posts[7], {"caption": name}, name, Prefer="wait=30").status == 200

        eventually(answered, within=within, every=0.2, because="an edit is applied again")
        self.harness.note(f"recovered in {time.time() - began:.1f} s")

    def hears(self) -> None:
        """The API is told of ends again: whoever hears nothing looks for himself, but only after a silence."""

        def at_once() -> bool:
            name = f"heard-{time.time()}"
            answer = self.harness.send(self.posts[8], {"caption": name}, name, Prefer="wait=10")
            return answer.status == 200 and (answer.answered or 0) - answer.sent < SILENCE

        eventually(at_once, within=RECOVERED, every=0.1, because="an end is announced, and heard")

    def judged(self, load: Load) -> None:
        """Everybody was answered, in time, with what the link allows; and the oracle over all of it."""
        odd = {one.status for one in load.exchanges if one.status is None or one.status >= 500}
        assert odd <= ({503} if self.link == "api-postgresql" else set()), odd
        assert load.slowest() < LONGEST
        assert self.worker.running, "a worker must outlive its network"
        self.harness.drained(within=2 * RESCUE_PERIOD)
        eventually(lambda: self.harness.locks_left() == [], within=30)
        self.harness.judge()


@contextmanager
def behind(harness: Harness, link: str) -> Iterator[Behind]:
    """An API and workers, one of them with a bad network towards one of its servers."""
    who, _, where = link.partition("-")
    posts = harness.populate()
    with bad_way(harness, where) as proxy:

        def way(whose: str) -> AbstractContextManager[None]:
            return through(harness, proxy, where) if who == whose else nullcontext()

        with way("api"):
            harness.start_api()
        with way("workers"):
            harness.start_ops()
            worker = harness.start_worker()
        yield Behind(link, harness, proxy, posts, worker)


def cut(harness: Harness, link: str, rounds: int) -> None:
    rng = random.Random(harness.seed)
    with behind(harness, link) as at, harness.load(at.posts) as load:
        for _ in range(rounds):
            before, reset = load.accepted, rng.random() < 0.5
            connections = at.proxy.cut(reset=reset)
            harness.note(f"cut {connections} connections by {'RST' if reset else 'FIN'}")
            assert connections > 0
            eventually(lambda before=before: load.accepted > before + 10, within=30, because="clients are answered")
            at.recovers()
        load.stop()
        at.judged(load)


def test_network_cut_connections_of_workers_to_postgresql_lose_nothing(harness: Harness) -> None:
    cut(harness, "workers-postgresql", 2)


@pytest.mark.faults
@pytest.mark.parametrize("link", LINKS)
def test_network_connections_cut_again_and_again_lose_nothing(harness: Harness, link: str) -> None:
    cut(harness, link, 10)


@pytest.mark.faults
@pytest.mark.parametrize("link", LINKS)
def test_network_connections_refused_for_a_while_lose_nothing(harness: Harness, link: str) -> None:
    with behind(harness, link) as at, harness.load(at.posts) as load:
        at.proxy.refuse()
        harness.note(f"cut {at.proxy.cut()} connections, and no new ones")
        at.keeps_answering(8)
        at.proxy.heal()
        harness.note("healed")
        at.recovers()
        at.hears()
        load.stop()
        at.judged(load)


@pytest.mark.faults
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("delay", [0.1, 0.2], ids=["100ms", "200ms"])
def test_network_a_way_of_100_or_200_ms_in_each_direction_is_slow_and_no_more(
    harness: Harness, link: str, delay: float
) -> None:
    with behind(harness, link) as at, harness.load(at.posts) as load:
        passed = dict(at.proxy.passed)
        at.proxy.delay(delay)
        since = time.time()
        harness.note(f"each chunk takes {delay:.1f} s")
        at.keeps_answering(10)
        at.recovers()
        waited = [one for one in load.exchanges if one.sent > since and one.status == 200]
        assert len(waited) >= 5, "edits are applied while clients wait"
        assert at.proxy.passed["up"] > passed["up"]
        at.proxy.heal()
        harness.note("healed")
        at.recovers()
        load.stop()
        at.judged(load)


def half_open(harness: Harness, link: str, ways: tuple[Way, ...], seconds: float) -> None:
    with behind(harness, link) as at, harness.load(at.posts) as load:
        at.proxy.swallow(ways)
        harness.note(f"half-open: nothing comes {' or '.join(ways)}")
        at.keeps_answering(seconds)
        assert at.proxy.swallowed[ways[0]] > 0
        at.proxy.heal()
        harness.note(f"healed; {dict(at.proxy.swallowed)} bytes were swallowed")
        at.recovers()
        at.hears()
        load.stop()
        at.judged(load)


@pytest.mark.faults
@pytest.mark.parametrize("ways", [BOTH, ("down",)], ids=["both", "down"])
@pytest.mark.parametrize("link", LINKS)
def test_network_half_open_connections_cost_time_and_no_edit(
    harness: Harness, link: str, ways: tuple[Way, ...]
) -> None:
    """`down` alone is the nastier: all is done, commits too, and nobody hears of it."""
    half_open(harness, link, ways, 8)


@pytest.mark.faults
@pytest.mark.parametrize("link", LINKS)
def test_network_half_open_connections_for_longer_than_every_time_out_cost_no_edit(harness: Harness, link: str) -> None:
    half_open(harness, link, BOTH, LONG)


def test_network_an_answer_that_never_comes_is_waited_for_as_long_as_the_server_may_work_on_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "OVERTIME", 0.3)
    with Proxy(database_url) as proxy:
        engine = db.make_engine(proxy.url, Settings(transaction_timeout=0.5), pool_size=1)

        def ask(longer: float) -> None:
            with db.transaction(engine) as tx:
                if longer:
                    db.wait_longer(tx, longer)
                proxy.swallow(("down",))
                tx.execute(text("SELECT 1"))

        def gave_up_after(longer: float = 0) -> float:
            with db.transaction(engine) as tx:
                assert tx.execute(text("SELECT 1")).scalar() == 1
            began = time.monotonic()
            with pytest.raises(DBAPIError) as told:
                ask(longer)
            assert db.is_transient(told.value)
            proxy.heal()
            return time.monotonic() - began

        assert 0.8 <= gave_up_after() < 1.1
        assert 1.5 <= gave_up_after(longer=1.2) < 1.8
        # Longer was for that transaction alone, and none of those connections is used again.
        assert 0.8 <= gave_up_after() < 1.1
        engine.dispose()


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["cut", "delay", "half-open"])
def test_network_clients_whose_answers_are_lost_repeat_and_make_one_edit_each(harness: Harness, fault: str) -> None:
    rng = random.Random(harness.seed)
    posts = harness.populate()
    harness.start_api().start_ops()
    harness.start_worker()
    with Proxy(harness.address) as proxy:
        harness.address = proxy.url
        with harness.load(posts) as load:
            for number in range(6):
                before = load.accepted
                if fault == "delay":
                    proxy.delay(0.1)
                elif fault == "half-open":
                    lost = proxy.swallowed["down"]
                    proxy.swallow(("down",))
                    eventually(lambda lost=lost: proxy.swallowed["down"] > lost + 2_000, within=30)
                    proxy.heal()
                    # What waits in vain is told so: no client of ours waits for less than the API may take.
                    proxy.cut()
                else:
                    assert proxy.cut(reset=rng.random() < 0.5) > 0
                harness.note(f"{fault} {number}")
                # Nobody else is concerned.
                other = harness.send(posts[6], {"caption": f"{number}"}, f"other-{number}", Prefer="wait=20")
                assert other.status == 200, other
                assert (other.answered or 0) - other.sent < PROMPT
                eventually(lambda before=before: load.accepted > before + 20, within=30, because="clients go on")
        unanswered = [one for one in load.exchanges if one.status is None]
        assert (len(unanswered) > 0) == (fault != "delay"), unanswered
        if fault == "half-open":
            assert any("idempotent-replayed" in one.headers for one in load.exchanges), "done, unheard, asked again"
    assert {one.status for one in load.exchanges if one.status is not None and one.status >= 500} == set()
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()
