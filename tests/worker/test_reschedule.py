"""Bulk jobs in the worker: what they move, what they leave alone, and what they write down."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain import reschedules
from shared.domain.lifecycle import ClaimKind
from shared.domain.reschedules import Outcome
from shared.domain.times import format_instant, format_local, to_local
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, posts
from worker.apply import apply_edits

__all__ = ["chunks_of_three"]


@pytest.mark.usefixtures("chunks_of_three")
def test_every_post_of_a_filter_is_moved_once_and_its_audit_row_is_its_result(engine: Engine) -> None:
    ids = posts(engine, 8, timezone="Europe/Paris")
    first = {post: jobs.at(engine, post) for post in ids}
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    ran = jobs.run(job)
    assert [one.outcome for one in ran] == ["frozen", "moved", "moved", "moved"]
    assert jobs.counts(job) == ("done", 8, 8, 0, 0)
    for post in ids:
        assert jobs.at(engine, post) == first[post] + timedelta(days=1)
        stored = factories.row(engine, "posts", post)
        assert (stored.revision, stored.schedule_revision, stored.timezone) == (2, 2, "Europe/Paris")
    results = jobs.results(job)
    assert [one.ordinal for one in results] == list(range(8))
    assert [one.post_id for one in results] == sorted(ids)
    for one, audit in zip(results, jobs.audit(engine, job), strict=True):
        was, now = first[one.post_id], first[one.post_id] + timedelta(days=1)
        assert one.public() == {
            "postId": one.post_id,
            "outcome": "applied",
            "before": format_instant(was),
            "after": format_instant(now),
            "reason": None,
            "warning": "same_minute",
        }
        assert (audit.status, audit.revision, audit.attempts) == ("applied", 2, 0)
        assert audit.before == {"scheduledTime": format_instant(was)}
        assert audit.after == {"scheduledTime": format_instant(now)}
        assert audit.changes == {"move": {"scheduledTime": format_instant(now), "timezone": "Europe/Paris"}}
        assert (audit.api_key_id, audit.requested_by, audit.workspace_id) == (
            factories.KEY_ID,
            "tests",
            factories.WORKSPACE,
        )


def test_the_statement_that_moves_a_post_does_what_the_lifecycle_says(engine: Engine) -> None:
    """`lifecycle.moved` is the rule; the one statement for a thousand posts must not have another."""
    with engine.begin() as tx:
        moved = factories.post(tx, timezone="Asia/Tokyo", retry_at=factories.soon(5), enqueued_revision=1)
        rezoned = factories.post(tx, timezone="Asia/Tokyo", retry_at=factories.soon(5), enqueued_revision=1)
        same = factories.post(tx, timezone="Europe/Paris")
    soon = factories.soon(600)
    local = {zone: format_local(to_local(jobs.at(engine, rezoned), zone)) for zone in ("Europe/Paris",)}
    items = [
        {"postId": moved, "scheduledTime": format_local(to_local(soon, "Asia/Tokyo")), "timezone": "Asia/Tokyo"},
        {"postId": rezoned, "scheduledTime": local["Europe/Paris"], "timezone": "Europe/Paris"},
        {"postId": same, "scheduledTime": local["Europe/Paris"], "timezone": "Europe/Paris"},
    ]
    job = jobs.done({"items": items})
    counters = {
        post: (row.revision, row.schedule_revision, row.retry_at is None, row.enqueued_revision)
        for post in (moved, rezoned, same)
        for row in [factories.row(engine, "posts", post)]
    }
    assert counters == {moved: (2, 2, True, None), rezoned: (2, 1, False, 1), same: (1, 1, True, None)}
    assert (jobs.counts(job), jobs.job(job).unchanged) == (("done", 3, 3, 0, 0), 1)
    # Sent once more, everything is there already; a dry run counts alike.
    for dry_run in (True, False):
        again = jobs.job(jobs.done({"items": items, "dryRun": dry_run}))
        assert (again.applied, again.unchanged) == (3, 3)
    audit = {row.post_id: row for row in jobs.audit(engine, job)}
    assert audit[rezoned].before == {"timezone": "Asia/Tokyo"}
    assert audit[rezoned].after == {"timezone": "Europe/Paris"}
    assert set(audit[moved].before) == {"scheduledTime"}
    assert (audit[same].before, audit[same].after, audit[same].revision) == ({}, {}, 1)
    shown = {one.post_id: (one.before, one.after) for one in jobs.results(job)}
    unmoved = format_instant(jobs.at(engine, same))
    assert shown[same] == shown[rezoned] == (unmoved, unmoved)


@pytest.mark.usefixtures("chunks_of_three")
def test_posts_that_may_not_be_edited_are_skipped_with_the_reason_and_unknown_ones_fail(engine: Engine) -> None:
    claim: dict[str, Any] = {"claim_token": "clm_1", "claim_expires_at": factories.soon(1)}
    with engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_other")
        fine, rendering = factories.post(tx), factories.slides(tx, claim_kind="render", **claim)
        publishing = factories.post(tx, claim_kind="publish", **claim | {"claim_token": "clm_2"})
        posted = factories.post(tx, status="posted", posted_at=factories.soon(-5))
        failed = factories.post(tx, status="failed", failure_reason="no")
        deleted = factories.post(tx, deleted_at=factories.soon(-1))
        foreign = factories.post(tx, workspace_id="ws_other", account_id=factories.TIKTOK + "_other")
        past = factories.post(tx, scheduled_time=factories.soon(5))
        odd = 'post_"quoted\\", {and}'
    named = [fine, rendering, publishing, posted, failed, deleted, foreign, past, odd]
    job = jobs.done({"filter": {"postIds": named}, "shift": "-PT10M"})
    assert jobs.told(job) == {
        fine: ("applied", None),
        rendering: ("applied", None),
        publishing: ("skipped", "being_published"),
        posted: ("skipped", "already_posted"),
        failed: ("skipped", "already_failed"),
        deleted: ("failed", "not_found"),
        foreign: ("failed", "not_found"),
        past: ("skipped", "time_past"),
        odd: ("failed", "not_found"),
    }
    assert jobs.counts(job) == ("done", 9, 2, 4, 3)
    assert factories.row(engine, "posts", foreign).revision == 1
    assert factories.row(engine, "posts", rendering).claim_kind == "render"
    assert {one.post_id for one in jobs.results(job, outcome=Outcome.FAILED)} == {deleted, foreign, odd}
    assert [one.post_id for one in jobs.results(job, limit=2, start=3)] == sorted(named)[3:5]
    reasons = {reason for _, reason in jobs.told(job).values() if reason}
    assert reasons < set(reschedules.WORDS)


def test_every_reason_has_its_words_and_every_kind_of_post_its_answer() -> None:
    assert set(reschedules.WORDS) == set(reschedules.Reason)
    assert len(reschedules._REFUSALS) == 4 * 3 * 2
    assert reschedules._REFUSALS["generated", ClaimKind.RENDER.value, False] is None


@pytest.mark.usefixtures("chunks_of_three")
def test_a_dry_run_has_the_same_results_and_changes_no_post(engine: Engine) -> None:
    ids = posts(engine, 5, timezone="America/New_York")
    with engine.begin() as tx:
        ids.append(factories.post(tx, scheduled_time=factories.soon(5), timezone="Asia/Tokyo"))
        ids.append(factories.post(tx, status="posted", posted_at=factories.soon(-5)))
        waiting = factories.post(tx, scheduled_time=factories.soon(5), timezone="Asia/Tokyo")
        later = {"scheduledTime": format_local(to_local(factories.soon(5000), "Asia/Tokyo")), "timezone": "Asia/Tokyo"}
        edit = factories.edit(tx, waiting, later)
    ids.append(waiting)
    before = [factories.row(engine, "posts", post) for post in ids]
    body = {"filter": {"postIds": [*ids, "post_nobody"]}, "shift": "-PT30M"}
    dry = jobs.done(body | {"dryRun": True})
    assert [factories.row(engine, "posts", post) for post in ids] == before
    assert factories.row(engine, "edits", edit).status == "queued"
    assert jobs.audit(engine, dry) == []
    real = jobs.done(body)
    assert jobs.results(dry) == jobs.results(real)
    assert jobs.counts(dry) == jobs.counts(real) == ("done", 9, 6, 2, 1)
    assert factories.row(engine, "edits", edit).status == "applied"


def test_a_chunk_drains_the_queue_of_its_posts_before_it_moves_them(engine: Engine) -> None:
    (post,) = posts(engine, 1)
    with engine.begin() as tx:
        new = {"scheduledTime": "2030-05-01T09:00", "timezone": "Europe/Paris", "caption": "edited"}
        edit = factories.edit(tx, post, new)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    jobs.run(job)
    stored = factories.row(engine, "posts", post)
    assert format_instant(stored.scheduled_time) == "2030-05-02T07:00:00Z"
    assert (stored.caption, stored.timezone, stored.revision) == ("edited", "Europe/Paris", 3)
    stored_edit = factories.row(engine, "edits", edit)
    assert (stored_edit.status, stored_edit.revision) == ("applied", 2)
    assert jobs.audit(engine, job)[0].revision == 3


def test_a_post_with_an_edit_that_has_an_attempt_is_skipped_and_its_neighbours_are_moved(engine: Engine) -> None:
    poisoned, fine = posts(engine, 2)
    with engine.begin() as tx:
        edit = factories.edit(tx, poisoned, {"caption": "poison"})
        tx.execute(text("UPDATE edits SET attempts = 1 WHERE id = :id"), {"id": edit})
    for dry_run in (True, False):
        job = jobs.done({"filter": ALL, "shift": "P1D", "dryRun": dry_run})
        assert jobs.told(job) == {poisoned: ("skipped", "edit_waiting"), fine: ("applied", None)}
    assert factories.row(engine, "edits", edit).attempts == 1
    assert factories.row(engine, "posts", poisoned).revision == 1


def test_a_queue_too_long_for_one_task_is_drained_in_several_and_the_post_moved_last(engine: Engine) -> None:
    (post,) = posts(engine, 1)
    with engine.begin() as tx:
        for number in range(1001):
            factories.edit(tx, post, {"caption": str(number)})
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    jobs.run(job)
    assert jobs.counts(job) == ("done", 1, 1, 0, 0)
    with engine.connect() as tx:
        applied = "SELECT count(*) FROM edits WHERE status = 'applied' AND reschedule_id IS NULL"
        assert tx.execute(text(applied)).scalar() == 1001
    assert jobs.audit(engine, job)[0].revision == 1003


def test_a_move_into_the_horizon_marks_and_rings_the_publish(engine: Engine) -> None:
    with engine.begin() as tx:
        soon = factories.post(tx, scheduled_time=datetime.now(UTC) + timedelta(hours=1, seconds=30))
        unrendered = factories.slides(tx, scheduled_time=datetime.now(UTC) + timedelta(hours=1, seconds=30))
        factories.post(tx, scheduled_time=factories.soon(200))
    ran = jobs.run(jobs.make({"filter": ALL, "shift": "-PT1H"}))
    assert [due[:2] for one in ran for due in one.follow_ups.publishes] == [(soon, 2)]
    assert factories.row(engine, "posts", soon).enqueued_revision == 2
    assert factories.row(engine, "posts", unrendered).enqueued_revision is None


def test_moved_posts_meet_later_edits_in_the_order_of_their_revisions(engine: Engine) -> None:
    (post,) = posts(engine, 1)
    jobs.done({"filter": ALL, "shift": "P1D"})
    with engine.begin() as tx:
        edit = factories.edit(tx, post, {"caption": "later"})
    apply_edits([post])
    assert factories.row(engine, "edits", edit).revision == 3
