"""A bulk job that is reverted: what it puts back, and what it leaves as it is."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from shared.domain.times import format_instant
from shared.store import reschedules as store
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, posts
from worker.apply import apply_edits

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")


def test_a_revert_restores_instant_and_zone_of_posts_that_still_are_where_the_job_put_them(engine: Engine) -> None:
    with engine.begin() as tx:
        plain, rezoned, edited, zone_only, unmoved, gone_by = (factories.post(tx, timezone=None) for _ in range(6))
        tx.execute(
            text("UPDATE posts SET scheduled_time = :at WHERE id = :id"),
            {"id": unmoved, "at": "2035-01-01T12:00Z"},
        )
        tx.execute(text("UPDATE posts SET scheduled_time = now() - interval '1s' WHERE id = :id"), {"id": gone_by})
        tx.execute(text("UPDATE posts SET timezone = 'Asia/Tokyo' WHERE id IN (:a, :b)"), {"a": rezoned, "b": unmoved})
    named = [plain, rezoned, edited, zone_only, unmoved, gone_by]
    first = {post: factories.row(engine, "posts", post) for post in named}
    items = [
        {"postId": post, "scheduledTime": "2035-01-01T21:00", "timezone": "Asia/Tokyo"}
        for post in (plain, rezoned, edited, zone_only, unmoved, gone_by)
    ]
    job = jobs.done({"items": items})
    assert jobs.counts(job) == ("done", 6, 6, 0, 0)
    with engine.begin() as tx:
        later = {"scheduledTime": "2035-01-01T21:01", "timezone": "Asia/Tokyo"}
        factories.edit(tx, edited, later)
        factories.edit(tx, zone_only, {"scheduledTime": "2035-01-01T12:00", "timezone": "Europe/London"})
    apply_edits([edited, zone_only])
    inverse = jobs.revert(job)
    jobs.run(inverse)
    assert jobs.told(inverse) == {
        plain: ("applied", None),
        rezoned: ("applied", None),
        edited: ("skipped", "changed_since"),
        zone_only: ("skipped", "changed_since"),
        gone_by: ("skipped", "time_past"),
    }
    for post in (plain, rezoned):
        stored = factories.row(engine, "posts", post)
        assert (stored.scheduled_time, stored.timezone) == (first[post].scheduled_time, first[post].timezone)
    again = jobs.revert(inverse)
    jobs.run(again)
    assert jobs.told(again) == {plain: ("applied", None), rezoned: ("applied", None)}
    assert format_instant(jobs.at(engine, plain)) == "2035-01-01T12:00:00Z"


def test_a_job_is_reverted_once(engine: Engine) -> None:
    posts(engine, 1)
    job = jobs.done({"filter": ALL, "shift": "P1D"})
    jobs.revert(job)
    with pytest.raises(AssertionError), transaction():
        jobs.revert(job)
    with transaction() as tx:
        assert store.reverted_by(tx, job) is not None


def test_a_reverted_shift_restores_each_post_over_a_clock_change(engine: Engine) -> None:
    with engine.begin() as tx:
        ids = [
            factories.post(tx, scheduled_time=f"2030-03-{day:02}T08:00Z", timezone="Europe/Paris")
            for day in range(25, 31)
        ]
    first = {post: jobs.at(engine, post) for post in ids}
    job = jobs.done({"filter": ALL, "shift": "P3DT2H"})
    steps = {jobs.at(engine, post) - first[post] for post in ids}
    assert steps == {timedelta(days=3, hours=2), timedelta(days=3, hours=1)}
    jobs.run(jobs.revert(job))
    assert {post: jobs.at(engine, post) for post in ids} == first
