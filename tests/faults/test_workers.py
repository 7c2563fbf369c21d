"""Rows 1 to 4 of docs/faults.md: workers and their pool children are killed and restarted."""

import random
import time

import pytest

from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.processes import Process
from tests.waiting import eventually

PLANTED = "--include=tests.faults.crashes"

CHILDREN = 2
"""Processes in the pool of a worker of edits."""


def kill_every_second(harness: Harness, kills: int) -> None:
    """Two workers for edits; each second the one that is at work under a lock is killed, with its pool children or
    without, and started again.
    """
    rng = random.Random(harness.seed)
    posts = harness.populate()
    harness.start_api().start_ops()
    workers = [harness.crashing_worker(), harness.crashing_worker()]
    with harness.load(posts) as load:
        for number in range(kills):
            caught = harness.send(
                rng.choice(posts), {"caption": f"slow {number}"}, f"slow-{number}", Prefer="respond-async"
            )
            victim = eventually(lambda edit=caught.edit_id: at_work(workers, edit), within=30)
            before, whole = load.accepted, rng.random() < 0.7
            victim.kill_tree() if whole else victim.kill()
            harness.note(f"killed worker {victim.pid} {'and its children' if whole else 'alone'} at {caught.edit_id}")
            assert victim.returncode == -9
            workers.remove(victim)
            workers.append(harness.processes.start("worker", "edits", PLANTED, **harness.environment))
            time.sleep(1)
            eventually(lambda before=before: load.accepted > before, within=30, because="clients are still answered")
        eventually(lambda: all("ready." in worker.output() for worker in workers), within=60)
    harness.drained(within=2 * RESCUE_PERIOD)
    assert harness.judge() >= 20


def at_work(workers: list[Process], edit: str | None) -> Process | None:
    """The worker that has just written this edit's end and not committed it."""
    return next((worker for worker in workers if f"struck slow {edit}" in worker.output()), None)


def test_row_01_a_worker_killed_every_second_loses_nothing_and_doubles_nothing(harness: Harness) -> None:
    kill_every_second(harness, 3)


@pytest.mark.faults
def test_row_01_a_worker_killed_every_second_for_a_minute(harness: Harness) -> None:
    kill_every_second(harness, 60)


@pytest.mark.parametrize("point", ["die-before-commit", "die-after-commit"])
def test_row_02_a_pool_child_killed_around_its_commit_has_done_all_or_nothing(harness: Harness, point: str) -> None:
    posts = harness.populate(8)
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    with harness.load(posts, clients=3):
        for number in range(3):
            answer = harness.send(posts[number], {"caption": f"{point} {number}"}, f"mine-{number}", Prefer="wait=20")
            assert answer.status == 200, answer
            edit = harness.row("edits", str(answer.edit_id))
            assert f"struck {point} {edit.id}" in worker.output()
            harness.note(f"{point} struck {edit.id}")
            # A death before the commit is an attempt; after it there was only the one that committed.
            assert (edit.status, edit.attempts) == ("applied", 2 if point == "die-before-commit" else 1)
    harness.drained(within=2 * RESCUE_PERIOD)
    # A second doorbell of the post may meet the edit before the first death is noticed, in each child once.
    assert 3 <= worker.output().count(f"struck {point}") <= 3 * CHILDREN
    harness.judge()


def test_row_03_an_edit_that_kills_its_child_each_time_fails_and_takes_nobody_with_it(harness: Harness) -> None:
    posts = harness.populate(8)
    post, other = posts[4], posts[5]
    harness.start_api().start_ops()
    worker = harness.crashing_worker()
    poison = harness.send(post, {"caption": "poison 1"}, "poison", Prefer="respond-async")
    behind = [harness.send(post, {"caption": f"behind {n}"}, f"behind-{n}", Prefer="respond-async") for n in range(3)]
    eventually(lambda: "struck poison" in worker.output(), within=30)
    with harness.load([other, *posts[:3]], clients=2) as load:
        answer = harness.http.get(f"/v1/edits/{poison.edit_id}", headers={"Prefer": "wait=30"}).json()
        assert (answer["status"], answer["attempts"], answer["error"]["code"]) == ("failed", 5, "internal")
        harness.note("the poison edit failed")
        for edit in behind:
            end = harness.http.get(f"/v1/edits/{edit.edit_id}", headers={"Prefer": "wait=10"}).json()
            assert end["status"] == "applied", end
    # Its first run is not counted before it dies: another child may run it too, until that death is noticed.
    assert 5 <= worker.output().count("struck poison") < 5 + CHILDREN
    assert load.accepted > 5
    harness.drained(within=2 * RESCUE_PERIOD)
    assert harness.row("posts", post).caption == "behind 2"
    harness.judge()


@pytest.mark.faults
def test_row_03_a_client_that_waits_for_a_poison_edit_is_answered_500_with_its_id(harness: Harness) -> None:
    (post,) = harness.populate(1)
    harness.start_api().start_ops()
    harness.crashing_worker()
    answer = harness.send(post, {"caption": "poison"}, "poison", Prefer="wait=30")
    assert (answer.status, answer.answer["error"]["code"]) == (500, "internal")
    assert harness.row("edits", str(answer.edit_id)).status == "failed"
    assert harness.send(post, {"caption": "after"}, "after", Prefer="wait=30").status == 200
    harness.judge()
