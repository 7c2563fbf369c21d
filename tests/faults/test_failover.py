"""Row 28 of docs/faults.md: PostgreSQL fails over to a standby that lacks the last commits; Redis moves.

tests/deployment/test_failover.py has the synchronous standby, which lacks none.
"""

import time
from collections import Counter
from pathlib import Path

import redis

from shared.local.valkey import Valkey
from tests import processes as real
from tests.conftest import empty_database
from tests.deployment.standby import both, cut_off, promote, standby_of
from tests.faults.conftest import MakeHarness
from tests.faults.evidence import Call, Exchange, gather
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.oracle import judge, verdict
from tests.faults.proxy import Proxy
from tests.faults.publishing import all_end, due, waits_end
from tests.processes import Server
from tests.reference_services.client import Played
from tests.waiting import eventually

SOON = {"REDRAFT_SERVICE_TIMEOUT": "1", "REDRAFT_CLAIM_EXPIRY": "4", "REDRAFT_RESCUE_PERIOD": "1"}


def test_row_28_a_standby_that_lacks_the_last_commits_makes_no_half_state_and_publishes_nothing_twice(
    make_harness: MakeHarness, own_postgres: Server, valkey: Valkey, tmp_path: Path
) -> None:
    with standby_of(own_postgres, synchronous=False) as standby:
        harness = make_harness(both(own_postgres, standby), empty_database(valkey), **SOON)
        opponent = Played(harness.processes, harness.seed, tmp_path / "journal")
        harness.environment |= opponent.environment
        harness.start_api().start_ops()
        harness.start_worker("edits")
        posts, published = harness.populate(), due(harness, 16)
        with harness.load(posts) as load:
            level = time.time()
            cut_off(own_postgres, standby)
            before = load.accepted
            harness.start_worker("publish")

            def gone() -> set[str]:
                waits_end(harness, published, claims=True)
                return effects(opponent)

            # The opponent refuses one in five for good.
            eventually(lambda: len(gone()) > 5 and load.accepted > before + 30, within=60, every=0.2)
            # The host of the primary had a publish worker too.
            harness.workers["publish"].kill_tree()
            own_postgres.process.kill_tree()
            harness.note("the primary is gone")
            eventually(lambda: any(one.status == 503 for one in list(load.exchanges)), within=30)
            forgotten = effects(opponent)
            promote(standby)
            promoted, before = time.time(), load.accepted
            harness.note("the standby is the primary")
            eventually(lambda: load.accepted > before + 30, within=60, because="all processes find the new primary")
        # Nobody knows that this post is out. Its owner edits it.
        edited = min(forgotten)
        assert harness.row("posts", edited).status == "generated"
        assert harness.patch(edited, {"caption": "after the failover"}).status_code == 200
        opponent.calm()
        harness.start_worker("publish")
        eventually(lambda: all_end(harness, published), within=60, every=0.3, because="every post has an end")
        harness.drained(within=2 * RESCUE_PERIOD)

        journal = opponent.journal()
        assert Counter(post for post, _ in journal["effects"]) == Counter(published), "each once"
        repeated = {call["post_id"] for call in journal["calls"] if call["at"] > promoted}
        assert repeated >= forgotten, "the new primary has to ask for them"
        lost = judged_without_the_last_moments(harness, journal["calls"], {edited}, level, promoted)
        assert lost, "the standby lacked nothing: this shows nothing"
        assert all(one.answered and one.answered > level for one in lost)


def effects(opponent: Played) -> set[str]:
    return {post for post, _ in opponent.journal()["effects"]}


def judged_without_the_last_moments(
    harness: Harness, calls: list[dict[str, object]], edited: set[str], level: float, promoted: float
) -> list[Exchange]:
    """The oracle, over all rows and over what was answered before the standby fell behind or asked after its promotion.

    `edited`: posts that changed after they went out. Returns the exchanges that accepted an edit that has no row now.
    """
    exchanges = [one for load in harness.loads for one in load.exchanges]
    kept = [one for one in exchanges if (one.answered or promoted) <= level or one.sent > promoted]
    first = {post_id: row for post_id, row in harness.first.items() if post_id not in edited}
    journal = [
        Call(call["at"], call["key"], call["body"], call["status"])  # type: ignore[arg-type]
        for call in calls
        if call["post_id"] not in edited
    ]
    evidence = gather(harness.engine, first, kept, journal)
    violations = judge(evidence)
    assert not violations, verdict(evidence, violations)
    rows = {edit.id for edit in evidence.edits}
    return [one for one in exchanges if one.status in (200, 202) and one.edit_id not in rows]


def test_row_28_redis_moves_to_another_server_and_no_edit_is_lost(
    make_harness: MakeHarness, database_url: str, own_valkey: Server
) -> None:
    with real.valkey() as other, Proxy(own_valkey.url) as name:
        first, second = own_valkey.server, other.server
        assert isinstance(first, Valkey)
        assert isinstance(second, Valkey)
        with redis.Redis.from_url(second.url()) as client:
            client.config_set("requirepass", first.password)
        harness = make_harness(database_url, name.url)
        posts = harness.populate()
        harness.start_api().start_ops()
        harness.start_worker("edits")
        with harness.load(posts) as load:
            own_valkey.process.kill()
            name.move(second.url())
            harness.note("the name means the other server")
            before = load.accepted
            eventually(lambda: load.accepted > before + 50, within=60, because="all processes find the other server")
            sent = harness.send(posts[6], {"caption": "moved"}, "moved", Prefer="wait=20")
            assert sent.status == 200, sent
        harness.drained(within=2 * RESCUE_PERIOD)
        assert {one.status for one in load.exchanges} <= {200, 202, 400, 412}
        harness.judge()
