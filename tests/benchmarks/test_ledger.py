"""A benchmark that measured something else than it says must say so: the checks behind every figure."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.benchmarks import data
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.ledger import Ledger
from tests.benchmarks.load import Load

_APPLY = """
    UPDATE edits SET status = 'applied', revision = 2, finalized_at = now() WHERE status = 'queued' AND post_id = %s
"""
_AUDIT = """
    INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, reschedule_id, status, revision, finalized_at)
    VALUES ('edit_' || %(post)s, %(post)s, %(workspace)s, '{}', 'job', 'rsch_1', 'applied', 2, now())
"""
_MOVE = "UPDATE posts SET revision = revision + 1 WHERE id = %s"


def told(statuses, *, clients=2, **errors):
    return Load(
        clients, 1.0, statuses, {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0} | errors, 1.0, ()
    )


@pytest.fixture
def stage(database_url):
    stage = Stage(database_url, "redis://unused")
    with stage.sql() as sql:
        data.workspace(sql)
        data.posts(sql, 20)
    return stage


def edit(stage, *numbers, moves=1):
    """Applied edits of these posts, of which each moved its post `moves` times."""
    with stage.sql() as sql:
        data.queued_edits(sql, [data.post_id(number) for number in numbers])
        for number in numbers:
            sql.execute(_APPLY, [data.post_id(number)])
            for _ in range(moves):
                sql.execute(_MOVE, [data.post_id(number)])


def test_a_run_whose_edits_were_all_applied_once_passes(stage):
    ledger = Ledger(stage)
    edit(stage, 1, 2, 3)
    assert ledger.close(told({200: 3}), within=5) == 3


def test_edits_from_before_the_run_do_not_count(stage):
    edit(stage, 1, 2)
    ledger = Ledger(stage)
    edit(stage, 3)
    assert ledger.close(told({200: 1}), within=5) == 1


@dataclass(frozen=True)
class Late(Stage):
    """A stage on which the edit that is under way is applied right after somebody has looked for the first time."""

    looks: list[int] = field(default_factory=list)

    @contextmanager
    def sql(self):
        with super().sql() as connection:
            yield connection
            self.looks.append(1)
            if len(self.looks) == 1:
                connection.execute(_APPLY, [data.post_id(1)])
                connection.execute(_MOVE, [data.post_id(1)])


def test_an_edit_that_a_warm_up_left_under_way_does_not_count_even_if_it_is_applied_during_the_opening(stage):
    with stage.sql() as sql:
        data.queued_edits(sql, [data.post_id(1)])
    late = Late(stage.database_url, stage.redis_url)
    ledger = Ledger(late)
    edit(stage, 2)
    assert ledger.close(told({200: 1}), within=5) == 1
    assert len(late.looks) > 1


def test_no_run_begins_while_an_edit_of_before_is_still_queued(stage):
    with stage.sql() as sql:
        data.queued_edits(sql, [data.post_id(1)])
    with pytest.raises(WrongMeasureError, match="before the run 1 edits are queued"):
        Ledger(stage, within=0.1)


def job_moves(stage, *numbers, moves=1):
    """Audit rows of a bulk job for these posts, of which each was moved `moves` times."""
    with stage.sql() as sql:
        for number in numbers:
            sql.execute(_AUDIT, {"post": data.post_id(number), "workspace": data.WORKSPACE})
            for _ in range(moves):
                sql.execute(_MOVE, [data.post_id(number)])


def test_what_a_job_moved_meanwhile_stands_beside_the_edits(stage):
    ledger = Ledger(stage)
    edit(stage, 1, 2)
    job_moves(stage, 2, 3, 4)
    assert ledger.close(told({200: 2}), within=5, moved_by_jobs=3) == 2


def test_a_post_that_a_job_moved_without_an_audit_row_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    job_moves(stage, 2, 3)
    with pytest.raises(WrongMeasureError, match="jobs moved 3 posts and left 2 audit rows"):
        ledger.close(told({200: 1}), within=0.1, moved_by_jobs=3)


def test_a_post_that_a_job_moved_twice_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    job_moves(stage, 2, moves=2)
    with pytest.raises(WrongMeasureError, match="1 moves of jobs recorded and posts moved by 3 revisions"):
        ledger.close(told({200: 1}), within=0.1, moved_by_jobs=1)


def test_requests_that_were_cut_off_at_the_end_may_have_been_applied_one_for_each_client(stage):
    ledger = Ledger(stage)
    edit(stage, 1, 2, 3)
    assert ledger.close(told({200: 1}, clients=2), within=5) == 3
    with pytest.raises(WrongMeasureError, match="1 edits were answered and 3 applied"):
        ledger.close(told({200: 1}, clients=1), within=0.1)


def test_an_answered_edit_that_left_no_row_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    with pytest.raises(WrongMeasureError, match="2 edits were answered and 1 applied"):
        ledger.close(told({200: 2}), within=0.1)


def test_an_edit_that_is_still_queued_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    with stage.sql() as sql:
        data.queued_edits(sql, [data.post_id(2)])
    with pytest.raises(WrongMeasureError, match="1 edits are still queued"):
        ledger.close(told({200: 1}), within=0.1)


def test_an_audit_row_without_its_effect_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1, moves=0)
    with pytest.raises(WrongMeasureError, match="1 edits were applied and posts moved by 0 revisions"):
        ledger.close(told({200: 1}), within=0.1)


def test_an_effect_that_happened_twice_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1, moves=2)
    with pytest.raises(WrongMeasureError, match="posts moved by 2 revisions"):
        ledger.close(told({200: 1}), within=0.1)


def test_a_request_that_was_recorded_twice_is_found(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    edit(stage, 2)  # the caption counts from 1 again
    with pytest.raises(WrongMeasureError, match="1 requests were recorded twice"):
        ledger.close(told({200: 2}), within=0.1)


def test_a_rejected_edit_is_no_applied_one(stage):
    ledger = Ledger(stage)
    edit(stage, 1)
    with stage.sql() as sql:
        sql.execute("UPDATE edits SET status = 'rejected', error_code = 'cannot_edit'")
    with pytest.raises(WrongMeasureError, match="1 edits ended otherwise than applied"):
        ledger.close(told({200: 1}), within=0.1)


@pytest.mark.parametrize("load", [told({200: 9, 202: 1}), told({503: 1}), told({}), told({200: 9}, timeout=1)])
def test_another_answer_than_the_one_that_is_measured_is_found(load):
    with pytest.raises(WrongMeasureError):
        load.must_be(200)


def test_the_posts_are_as_many_as_said_and_all_can_be_edited(stage):
    with stage.sql() as sql:
        count, first, last, waiting = sql.execute(
            "SELECT count(*), min(id), max(id), count(*) FILTER (WHERE status = 'generated') FROM posts"
        ).fetchone()
    assert (count, first, last, waiting) == (20, data.post_id(1), data.post_id(20), 20)


def test_old_edits_leave_every_index_as_it_was(stage):
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'edits' ORDER BY indexdef"
    with stage.sql() as sql:
        before = sql.execute(indexes).fetchall()
        data.audit_rows(sql, 50, posts=20)
        assert sql.execute(indexes).fetchall() == before
        assert sql.execute("SELECT count(*) FROM edits WHERE status = 'applied'").fetchone()[0] == 50
