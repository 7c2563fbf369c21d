"""Row 16 of docs/faults.md: a bulk job killed at random chunks, with single edits meanwhile."""

import random
import time
from typing import Any

import pytest
from sqlalchemy import text

from tests import factories
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.processes import Process
from tests.waiting import eventually

PATH = "/v1/reschedules"
# Each post moves by this, whatever its zone: what has been moved can be seen without knowing any plan.
SHIFT, SECONDS = "PT26H", 26 * 3600


def fill(harness: Harness, count: int) -> None:
    """That many posts besides the load's, and how all of them stood before."""
    with harness.engine.begin() as tx:
        tx.execute(
            text("""
                INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, timezone,
                    scheduled_time, status)
                SELECT 'post_bulk_' || lpad(n::text, 6, '0'), :workspace, :account, 'tiktok', 'video',
                    '"https://cdn.example.com/a.mp4"', 'caption ' || n, 'Europe/Paris',
                    date_trunc('minute', now()) + interval '3 days' + (n * 7 % 57600) * interval '1 minute', 'generated'
                FROM generate_series(1, :count) n"""),
            {"workspace": factories.WORKSPACE, "account": factories.TIKTOK, "count": count},
        )
        tx.execute(text("CREATE TABLE stood AS SELECT id, scheduled_time, revision, schedule_revision FROM posts"))
    with harness.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE posts"))


def bulk_worker(harness: Harness, odds: int) -> Process:
    """A worker for bulk jobs in which one chunk in `odds` dies before its commit, and as many right after it."""
    harness.environment["FAULTS_BULK"] = f"{harness.seed}/{odds}"
    return harness.start_worker("bulk", "--include=tests.faults.bulk_crashes")


def started(harness: Harness, shift: str = SHIFT) -> str:
    answer = harness.http.post(PATH, json={"filter": {"all": True}, "shift": shift})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(harness: Harness, job_id: str, *, within: float) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = harness.http.get(f"{PATH}/{job_id}").json()
        return job if job["status"] not in {"queued", "running"} else None

    found = eventually(look, within=within, every=0.1, because="the job ends by itself")
    assert found is not None
    harness.note(f"the job ends: {found}")
    return found


def moved_once(harness: Harness, jobs: list[dict[str, Any]], edited: list[str]) -> None:
    """Each post has one result of each job; each applied one an audit row and one move, whatever died meanwhile."""
    total = harness.scalar("SELECT count(*) FROM stood")
    audited = "SELECT count(*) FROM edits WHERE reschedule_id = :job"
    for job in jobs:
        assert (job["status"], job["total"]) == ("done", total)
        assert job["applied"] + job["skipped"] + job["failed"] == total
        assert harness.scalar(audited, job=job["id"]) == job["applied"]
        assert harness.scalar(f"{audited} AND status = 'applied'", job=job["id"]) == job["applied"]
        assert harness.scalar(audited.replace("count(*)", "count(DISTINCT post_id)"), job=job["id"]) == job["applied"]
    # Posts that nobody edited were moved exactly once by each, and their counters say so; the others are the oracle's.
    wrong = harness.scalar(
        """SELECT count(*) FROM posts p JOIN stood s USING (id) WHERE NOT p.id = ANY(:edited)
           AND NOT (p.scheduled_time = s.scheduled_time + make_interval(secs => :seconds)
                    AND p.revision = s.revision + :jobs AND p.schedule_revision = s.schedule_revision + :jobs)""",
        edited=edited,
        seconds=SECONDS * len(jobs),
        jobs=len(jobs),
    )
    assert wrong == 0
    said = harness.scalar("SELECT count(*) FROM reschedule_chunks WHERE NOT done OR held <> '{}'")
    assert said == 0


def no_deadlock(harness: Harness, *workers: Process) -> None:
    assert harness.scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    for worker in workers:
        assert "DeadlockDetected" not in worker.output()


def test_row_16_children_that_die_before_and_after_their_commits_move_every_post_once(harness: Harness) -> None:
    posts = harness.populate(12)
    fill(harness, 9_500)
    harness.start_api().start_ops()
    edits, bulk = harness.start_worker("edits"), bulk_worker(harness, 3)
    with harness.load(posts, clients=3):
        job = ended(harness, started(harness), within=90)
    harness.drained(within=2 * RESCUE_PERIOD)
    deaths = bulk.output().count("struck before-commit"), bulk.output().count("struck after-commit")
    harness.note(f"deaths before and after commit: {deaths}")
    assert min(deaths) > 0, "the crash points must strike"
    moved_once(harness, [job], posts)
    no_deadlock(harness, edits, bulk)
    harness.judge()


def test_row_16_posts_that_a_person_holds_delay_themselves_alone_and_are_moved_in_the_end(harness: Harness) -> None:
    posts = harness.populate(5)
    fill(harness, 2_500)
    harness.start_api()
    bulk = harness.start_worker("bulk")
    with harness.engine.begin() as person:
        held = [*posts, "post_bulk_000001", "post_bulk_002500"]
        person.execute(text("SELECT FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": held})
        job_id = started(harness)
        moved = eventually(
            lambda: harness.http.get(f"{PATH}/{job_id}").json()["applied"] == 2_505 - len(held), within=60
        )  # fmt: skip
        assert moved
        assert harness.http.get(f"{PATH}/{job_id}").json()["status"] == "running"
    moved_once(harness, [ended(harness, job_id, within=20)], [])
    no_deadlock(harness, bulk)


@pytest.mark.faults
def test_row_16_a_job_of_100_000_posts_with_workers_killed_at_random_and_single_edits_meanwhile(
    harness: Harness,
) -> None:
    rng = random.Random(harness.seed)
    posts = harness.populate(200)
    fill(harness, 100_000 - len(posts))
    harness.start_api().start_ops()
    edits, bulk = harness.start_worker("edits"), bulk_worker(harness, 15)
    deaths = 0
    with harness.load(posts, clients=4) as load:
        since = time.time()
        job_id = started(harness)
        for _ in range(4):
            done = harness.http.get(f"{PATH}/{job_id}").json()
            if done["status"] not in {"queued", "running"}:
                break
            target = (done["applied"] or 0) + rng.randrange(3_000, 15_000)

            def far_enough(target: int = target) -> bool:
                now = harness.http.get(f"{PATH}/{job_id}").json()
                return bool(now["applied"] >= target or now["status"] == "done")

            eventually(far_enough, within=120, because="the job goes on after a kill")
            deaths += bulk.output().count("struck")
            bulk.kill_tree()
            harness.note("killed the whole bulk worker")
            bulk = bulk_worker(harness, 15)
        job = ended(harness, job_id, within=300)
        slowest = load.slowest(since=since)
    deaths += bulk.output().count("struck")
    harness.note(f"{deaths} children died; slowest answer {slowest:.2f} s")
    harness.drained(within=2 * RESCUE_PERIOD)
    moved_once(harness, [job], posts)
    no_deadlock(harness, edits, bulk)
    # Single edits were answered within their wait all the while: none met a lock that outlived a chunk.
    assert slowest < 10
    harness.judge()
    # And all of it back again, by the same way.
    inverse = harness.http.post(f"{PATH}/{job_id}/revert").json()
    back = ended(harness, inverse["id"], within=300)
    assert back["applied"] + back["skipped"] == back["total"] == job["applied"]
    assert back["applied"] >= job["total"] - len(posts)
    away = """SELECT count(*) FROM posts p JOIN stood s USING (id)
              WHERE p.scheduled_time <> s.scheduled_time AND NOT p.id = ANY(:edited)"""
    assert harness.scalar(away, edited=posts) == 0
