"""Row 12 of docs/faults.md: somebody holds a post's lock, dies with it, or freezes with it."""

import os
import re
import signal
import time
from statistics import median

import pytest
import redis
from sqlalchemy import text

from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.faults.load import Load
from tests.waiting import eventually

# idle_in_transaction_session_timeout: PostgreSQL ends a holder that does nothing.
IDLE = 5.0
# As in crashes.py, which must not be imported here: it would plant its crash points in this process.
SLOW = 2.0


def keeps_its_speed(load: Load, since: float, until: float) -> None:
    """Of the edits sent meanwhile that were waited for, nearly all were answered at once."""
    waited = [
        one.answered - one.sent
        for one in list(load.exchanges)
        if one.status == 200 and one.answered is not None and since <= one.sent <= until
    ]
    assert len(waited) >= 5, waited
    assert median(waited) < 0.5, sorted(waited)


def terminate_idle(harness: Harness) -> int:
    """End the sessions that sit on their locks; how many."""
    return int(
        harness.scalar(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'redraft'
                 AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '300 ms'"""
        )
    )


@pytest.mark.faults
def test_row_12_an_edit_whose_lock_holder_is_terminated_is_applied_by_the_next_at_no_cost(harness: Harness) -> None:
    posts = harness.populate(8)
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    with harness.load(posts[:5], clients=3):
        for number in range(2):
            slow = harness.send(posts[6], {"caption": f"slow {number}"}, f"slow-{number}", Prefer="respond-async")
            eventually(lambda edit=slow.edit_id: f"struck slow {edit}" in worker.output(), within=30)
            ended = eventually(lambda: terminate_idle(harness), within=SLOW)
            harness.note(f"terminated {ended} backends that held locks")
            end = harness.http.get(f"/v1/edits/{slow.edit_id}", headers={"Prefer": "wait=20"}).json()
            # Given back by the holder when it notices, unless rescue's run has been through before that.
            assert (end["status"], end["attempts"] <= 2) == ("applied", True), end
    harness.drained(within=2 * RESCUE_PERIOD)
    assert "task_put_off" in worker.output()
    harness.judge()


@pytest.mark.faults
def test_row_12_a_worker_frozen_under_its_lock_delays_its_post_only_and_changes_nothing_when_thawed(
    harness: Harness,
) -> None:
    posts = harness.populate(8)
    post = posts[6]
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    # Before the load: of the posts of its own batch it holds the locks too.
    frozen = harness.send(post, {"caption": "freeze"}, "freeze", Prefer="respond-async")
    eventually(lambda: f"struck freeze {frozen.edit_id}" in worker.output(), within=30)
    since = time.time()
    with harness.load(posts[:5], clients=3) as load:
        found = re.search(r"struck freeze \S+ in (\d+)", worker.output())
        assert found is not None
        child = int(found[1])
        harness.note(f"{child} is frozen under the lock")
        behind = harness.send(post, {"caption": "behind"}, "behind", Prefer="respond-async")
        try:
            # PostgreSQL ends the frozen one's session; the edit was started and not ended, so it runs alone, once more.
            ends = [
                harness.http.get(f"/v1/edits/{edit.edit_id}", headers={"Prefer": "wait=25"}).json()
                for edit in (frozen, behind)
            ]
            assert [end["status"] for end in ends] == ["applied", "applied"], ends
            held = time.time() - since
            assert held > IDLE - 1, "the lock must have been held"
            assert held < IDLE + RESCUE_PERIOD, "and for no longer than a session may idle in its transaction"
            assert ends[1]["attempts"] == 1
            keeps_its_speed(load, since, since + IDLE)
            before = harness.row("posts", post), harness.edits_of(post)
        finally:
            os.kill(child, signal.SIGCONT)
        harness.note(f"{child} is thawed")
        eventually(
            lambda: "task_put_off" in worker.output(), within=30, because="the thawed one finds its session gone"
        )
        assert (harness.row("posts", post), harness.edits_of(post)) == before
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


def hold(harness: Harness, count: int, seconds: float) -> None:
    """A person's psql holds `count` posts FOR UPDATE; two pool children have the others' edits."""
    posts = harness.populate(10)
    held = posts[-count:]
    harness.start_api().start_ops()
    harness.start_worker()
    with harness.load(posts[:5], clients=3) as load:
        with harness.engine.begin() as person:
            person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": held})
            since = time.time()
            waiting = [
                harness.send(post, {"caption": f"{number}"}, f"{post}-{number}", Prefer="respond-async")
                for number in range(3)
                for post in held
            ]
            assert {edit.status for edit in waiting} == {202}
            while time.time() < since + seconds:
                name = f"waits-{time.time()}"
                impatient = harness.send(held[0], {"caption": name}, name, Prefer="wait=1")
                assert impatient.status == 202, impatient
                waiting.append(impatient)
            keeps_its_speed(load, since, time.time())
            assert harness.scalar("SELECT sum(attempts) FROM edits WHERE post_id = ANY(:ids)", ids=held) == 0
            released = time.time()
        harness.note(f"released after {released - since:.1f} s")
        for edit in waiting:
            end = harness.http.get(f"/v1/edits/{edit.edit_id}", headers={"Prefer": "wait=10"}).json()
            assert (end["status"], end["attempts"]) == ("applied", 1), end
        assert time.time() - released < RESCUE_PERIOD, "a held post is rung again soon, not only rescued"
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


def test_row_12_posts_held_by_a_person_delay_their_own_edits_only(harness: Harness) -> None:
    """As many as there are pool children: nobody waits for them."""
    hold(harness, 2, 3)


def test_row_12_an_edit_held_by_a_person_delays_its_own_post_only(harness: Harness) -> None:
    """A psql that looks at one row FOR UPDATE; one pool child has the edits of all posts."""
    posts = harness.populate(10)
    held = posts[-1]
    harness.start_api().start_ops()
    edits = [harness.send(held, {"caption": str(n)}, f"held-{n}", Prefer="respond-async") for n in range(3)]
    with harness.engine.begin() as person:
        person.execute(text("SELECT 1 FROM edits WHERE id = :id FOR UPDATE"), {"id": edits[1].edit_id})
        harness.start_worker("edits", "--concurrency=1")
        with harness.load(posts[:5], clients=3) as load:
            since = time.time()
            eventually(lambda: load.accepted > 40, within=30, because="all other posts go on")
            keeps_its_speed(load, since, time.time())
        rows = {edit.edit_id: harness.row("edits", edit.edit_id or "") for edit in edits}
        assert [(row.status, row.attempts) for row in rows.values()] == [("applied", 1), ("queued", 0), ("queued", 0)]
        released = time.time()
    for edit in edits:
        end = harness.http.get(f"/v1/edits/{edit.edit_id}", headers={"Prefer": "wait=10"}).json()
        assert (end["status"], end["attempts"]) == ("applied", 1), end
    assert time.time() - released < RESCUE_PERIOD, "it is rung again soon, not only rescued"
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


def test_row_12_a_held_post_that_is_edited_all_the_time_is_tried_by_one_message(harness: Harness) -> None:
    """A message for each of its edits would come back four times a second until the workers did nothing else."""
    posts = harness.populate(10)
    hot = posts[-1]
    harness.start_api().start_ops()
    harness.start_worker()
    with (
        harness.load(posts[:5], clients=3) as load,
        redis.Redis.from_url(harness.environment["REDRAFT_REDIS_URL"]) as broker,
    ):
        with harness.engine.begin() as person:
            person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": hot})
            since = time.time()
            waiting = [
                harness.send(hot, {"caption": f"{number}"}, f"hot-{number}", Prefer="respond-async")
                for number in range(100)
            ]
            assert {edit.status for edit in waiting} == {202}
            keeps_its_speed(load, since, time.time())
            # One that will try it again, and what the moment brings: bells of the load, rescue's, dispatch's.
            # The post stays locked, and a message for each edit would stay as long.
            eventually(lambda: broker.llen("edits") + broker.hlen("unacked") <= 5, within=30)
        last = harness.http.get(f"/v1/edits/{waiting[-1].edit_id}", headers={"Prefer": "wait=10"}).json()
        assert (last["status"], last["attempts"], last["revision"]) == ("applied", 1, 101), last
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


@pytest.mark.faults
@pytest.mark.parametrize("count", [1, 2])
def test_row_12_a_post_held_by_a_person_for_a_minute(harness: Harness, count: int) -> None:
    hold(harness, count, 60)
