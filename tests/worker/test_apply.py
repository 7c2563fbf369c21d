"""Applying queued edits: order, results, counters, attempts, and contended posts."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from shared.domain.edit_histories import EditHistory
from shared.domain.lifecycle import EditStatus
from shared.store import batches, db, operator_actions
from shared.store import edits as edits_store
from shared.store.edits import Owed
from tests import factories
from tests.worker.bulk import edits_locked_by_a_person
from tests.worker.failing_decisions import fail_for
from worker import apply
from worker.apply import Applied, apply_edits
from worker.attempts import EditAttempts


def story(engine: Engine, edit: str) -> EditHistory:
    with engine.connect() as tx:
        found = operator_actions.history(tx, edit)
    assert found
    return found


def test_edits_of_one_post_are_applied_in_the_order_in_which_they_were_accepted(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        ids = [factories.edit(tx, post, {"caption": f"caption {number}"}) for number in range(20)]
    applied = apply_edits([post])
    assert [end.id for end in applied.results] == ids
    assert [end.revision for end in applied.results] == list(range(2, 22))
    stored = factories.row(engine, "posts", post)
    assert (stored.caption, stored.revision, stored.schedule_revision) == ("caption 19", 21, 1)


def test_the_end_the_effect_and_the_audit_record_are_in_one_row_and_one_commit(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        edit = factories.edit(tx, post, {"caption": "second"})
    apply_edits([post])
    ended = story(engine, edit)
    assert (ended.status, ended.revision, ended.attempts) == ("applied", 2, 1)
    assert (ended.before, ended.after) == ({"caption": "first"}, {"caption": "second"})
    assert ended.finalized_at
    assert ended.started_at
    assert ended.finalized_at >= ended.started_at >= ended.created_at
    assert '"caption":"second"' in factories.row(engine, "edits", edit).result


@pytest.mark.parametrize(("on_record", "fixed"), [(False, 6), (True, 6)], ids=["counted before", "on record"])
def test_a_batch_takes_a_fixed_number_of_statements_whatever_the_number_of_posts(
    engine: Engine, on_record: bool, fixed: int
) -> None:
    """Lock, queue, attempts or the bound of waiting, posts, results, COMMIT."""

    def statements(count: int) -> int:
        with engine.begin() as tx:
            posts = [factories.post(tx) for _ in range(count)]
            for post in posts:
                factories.edit(tx, post, {"caption": "second"})
        with factories.statements() as seen:
            assert len(apply_edits(posts, on_record=on_record).results) == count
        return len(seen)

    statements(1)  # SQLAlchemy and psycopg ask a new server some questions of their own
    assert statements(1) == statements(50) == fixed


def test_a_time_that_moves_within_the_horizon_rings_its_publish_and_marks_it(engine: Engine) -> None:
    local = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M")
    with engine.begin() as tx:
        post = factories.post(tx)
        edit = factories.edit(tx, post, {"scheduledTime": local, "timezone": "Europe/London"})
        tx.execute(text("UPDATE edits SET created_at = now() - interval '2 minutes' WHERE id = :id"), {"id": edit})
    applied = apply_edits([post])
    stored = factories.row(engine, "posts", post)
    assert stored.schedule_revision == stored.enqueued_revision == 2
    assert [(due[0], due[1]) for due in applied.follow_ups.publishes] == [(post, 2)]


def test_an_edit_that_changes_nothing_is_applied_and_moves_no_counter(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        edit = factories.edit(tx, post, {"caption": "first"})
    before = factories.row(engine, "posts", post)
    apply_edits([post])
    ended = story(engine, edit)
    assert factories.row(engine, "posts", post) == before
    assert (ended.status, ended.revision, ended.before, ended.after) == ("applied", 1, {}, {})


def test_an_edit_of_a_posted_post_is_rejected_with_the_code_and_message_of_the_contract(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, status="posted", posted_at=factories.soon(-5))
        edit = factories.edit(tx, post, {"caption": "late"})
    apply_edits([post])
    ended = factories.row(engine, "edits", edit)
    assert (ended.status, ended.error_code) == ("rejected", "cannot_edit")
    assert ended.error_message == "Only posts with status 'generated' or 'pending_render' can be edited"
    assert ended.error_details == [{"field": "status", "message": "posted"}]


def test_a_content_edit_drops_a_running_render_and_queues_a_new_one(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.slides(
            tx, claim_kind="render", claim_token="clm_1", claim_expires_at=factories.soon(1), content_revision=3
        )
        urls = ["https://cdn.example.com/9.jpg"]
        factories.edit(tx, post, {"contentType": "slides", "contentUrl": urls})
    applied = apply_edits([post])
    stored = factories.row(engine, "posts", post)
    assert (stored.claim_kind, stored.content_revision, stored.status) == (None, 4, "pending_render")
    assert (applied.follow_ups.renders, stored.thumbnail_url) == ([(post, 4)], None)


def test_an_isolated_edit_runs_by_itself_and_the_rest_of_its_queue_is_rung_for(engine: Engine) -> None:
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        first = factories.edit(tx, post, {"caption": "one"})
        tried = factories.edit(tx, post, {"caption": "two"})
        after = factories.edit(tx, post, {"caption": "three"})
        neighbour = factories.edit(tx, other, {"caption": "mine"})
        tx.execute(text("UPDATE edits SET attempts = 1 WHERE id = :id"), {"id": tried})
    applied = apply_edits([post, other])
    assert [end.id for end in applied.results] == [first, neighbour, tried]
    assert applied.follow_ups.edits == [post]
    assert factories.row(engine, "edits", tried).attempts == 2
    assert [end.id for end in apply_edits(applied.follow_ups.edits).results] == [after]


def test_an_edit_whose_attempts_are_spent_fails_unrun_and_the_rest_goes_on(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        poison = factories.edit(tx, post, {"caption": "poison"})
        after = factories.edit(tx, post, {"caption": "after"})
        tx.execute(text("UPDATE edits SET attempts = 5 WHERE id = :id"), {"id": poison})
    applied = apply_edits([post])
    assert [(end.id, end.status) for end in applied.results] == [(poison, EditStatus.FAILED)]
    apply_edits(applied.follow_ups.edits)
    assert factories.row(engine, "edits", after).status == "applied"
    assert factories.row(engine, "posts", post).caption == "after"


def test_an_edit_that_raises_costs_its_neighbours_nothing_but_an_isolated_run(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_for(monkeypatch, "poison", ZeroDivisionError)
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        poison = factories.edit(tx, post, {"caption": "poison"})
        after = factories.edit(tx, post, {"caption": "after"})
        neighbour = factories.edit(tx, other, {"caption": "mine"})
    with capture_logs() as said:
        for _ in range(12):
            try:
                apply_edits([post, other])
            except ZeroDivisionError:
                continue
    ended = {edit: factories.row(engine, "edits", edit) for edit in (poison, after, neighbour)}
    assert [ended[edit].status for edit in (poison, after, neighbour)] == ["failed", "applied", "applied"]
    assert (ended[poison].attempts, ended[after].attempts, ended[neighbour].attempts) == (5, 2, 2)
    # An operator who has the edit's id finds the fault in the log.
    spent = [line for line in said if line["event"] == "attempt_spent" and poison in line["edits"]]
    assert len(spent) >= 5
    assert {line["error"] for line in spent} == {"ZeroDivisionError"}


def test_an_edit_of_a_newer_version_is_never_applied_without_the_field_that_is_unknown_here(engine: Engine) -> None:
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        newer = factories.edit(tx, post, {"caption": "known", "altText": "unknown"})
        neighbour = factories.edit(tx, other, {"caption": "mine"})
    for _ in range(12):
        with suppress(apply.NewerEditError):
            apply_edits([post, other])
    assert factories.row(engine, "edits", newer).status == "failed"
    assert factories.row(engine, "posts", post).caption != "known"
    assert factories.row(engine, "edits", neighbour).status == "applied"


@pytest.mark.parametrize("on_record", [False, True], ids=["counted before", "on record"])
def test_a_lost_connection_costs_no_attempt(engine: Engine, monkeypatch: pytest.MonkeyPatch, on_record: bool) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        edit = factories.edit(tx, post, {"caption": "second"})

    def cut(tx: Any, *_: Any, **__: Any) -> None:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with monkeypatch.context() as patch:
        patch.setattr(batches, "finalize", cut)
        with pytest.raises(Exception, match="terminat") as lost:
            apply_edits([post], on_record=on_record)
    assert db.is_transient(lost.value)
    assert (factories.row(engine, "edits", edit).attempts, factories.row(engine, "edits", edit).status) == (0, "queued")
    assert len(apply_edits([post]).results) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_attempt_is_given_back_only_where_it_was_counted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The connection aside is lost before the counting, or in its answer: who lost it cannot know which."""
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        fresh, tried = factories.edit(tx, other, {"caption": "one"}), factories.edit(tx, post, {"caption": "two"})
        tx.execute(text("UPDATE edits SET attempts = 3 WHERE id = :id"), {"id": tried})
    count = edits_store.count_attempts

    def cut(relaxed: Any, ids: Any) -> None:
        if when == "after":
            count(relaxed, ids)
        relaxed.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with monkeypatch.context() as patch:
        patch.setattr(edits_store, "count_attempts", cut)
        for edit in (other, post):
            with pytest.raises(Exception, match="terminat") as lost:
                apply_edits([edit])
            assert db.is_transient(lost.value)
    assert (factories.row(engine, "edits", fresh).attempts, factories.row(engine, "edits", tried).attempts) == (0, 3)


def test_an_attempt_that_another_counted_since_leaves_ours_to_be_given_back(engine: Engine) -> None:
    with engine.begin() as tx:
        edit = factories.edit(tx, factories.post(tx), {"caption": "one"})
        tx.execute(text("UPDATE edits SET attempts = 2 WHERE id = :id"), {"id": edit})
    with db.autocommit_relaxed() as relaxed:
        edits_store.give_back_attempts(relaxed, [Owed(edit, 0, deferred=False)])
    assert factories.row(engine, "edits", edit).attempts == 1


def test_the_long_queue_of_a_contended_post_does_not_hide_its_neighbour_s(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "EDITS_A_TASK", 2)
    with engine.begin() as tx:
        held, free = factories.post(tx), factories.post(tx)
        for number in range(5):
            factories.edit(tx, held, {"caption": f"later {number}"})
        behind = factories.edit(tx, free, {"caption": "now"})
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        applied = apply_edits([held, free])
    assert [end.id for end in applied.results] == [behind]
    assert applied.follow_ups.contended == [held]


def test_who_waits_for_a_contended_post_tells_first_how_its_neighbours_ended(engine: Engine) -> None:
    with engine.begin() as tx:
        held, free = factories.post(tx), factories.post(tx)
        waiting = factories.edit(tx, held, {"caption": "later"})
        at_once = factories.edit(tx, free, {"caption": "now"})
    told: list[str] = []
    with engine.connect() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})

        def tell(so_far: Applied) -> None:
            """Only now the person lets go: had nobody been told before the waiting, it would have been in vain."""
            told.extend(end.id for end in so_far.results)
            person.rollback()

        applied = apply_edits([held, free], tell)
    assert told == [at_once]
    assert ([end.id for end in applied.results], applied.announced) == ([at_once, waiting], 1)
    assert applied.follow_ups.contended == []


def test_where_nothing_is_left_for_later_nobody_is_told_twice(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.edit(tx, post := factories.post(tx), {"caption": "now"})
    applied = apply_edits([post], lambda _: pytest.fail("there is one answer, and the task gives it"))
    assert (len(applied.results), applied.announced) == (1, 0)


def test_a_post_that_a_person_holds_delays_its_own_edits_only_and_costs_no_attempt(engine: Engine) -> None:
    with engine.begin() as tx:
        held, free = factories.post(tx), factories.post(tx)
        waiting = factories.edit(tx, held, {"caption": "later"})
        factories.edit(tx, free, {"caption": "now"})
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        applied = apply_edits([held, free])
        assert [end.id for end in applied.results if end.id != waiting] == [applied.results[0].id]
        assert (len(applied.results), applied.follow_ups.contended) == (1, [held])
        assert factories.row(engine, "edits", waiting).attempts == 0
    assert [end.id for end in apply_edits(applied.follow_ups.contended).results] == [waiting]


@pytest.mark.parametrize("attempts", [0, 2, 5])
def test_an_edit_whose_row_a_person_holds_delays_its_own_post_only_and_costs_no_attempt(
    engine: Engine, attempts: int
) -> None:
    with engine.begin() as tx:
        post, free = factories.post(tx), factories.post(tx)
        first, taken, behind = (factories.edit(tx, post, {"caption": word}) for word in ("one", "two", "three"))
        now = factories.edit(tx, free, {"caption": "now"})
        tx.execute(text("UPDATE edits SET attempts = :attempts WHERE id = :id"), {"id": taken, "attempts": attempts})
    with edits_locked_by_a_person(engine, taken):
        applied = apply_edits([post, free])
        assert [end.id for end in applied.results] == [first, now]
        assert (set(applied.follow_ups.contended), applied.follow_ups.edits) == ({post}, [])
        again = apply_edits(applied.follow_ups.contended)
        assert (again.results, set(again.follow_ups.contended), again.follow_ups.edits) == ([], {post}, [])
        assert [factories.row(engine, "edits", edit).attempts for edit in (taken, behind)] == [attempts, 0]
    ends = apply_edits([post]).results + apply_edits([post]).results
    assert [end.id for end in ends] == [taken, behind]
    assert {end.status for end in ends} == {
        EditStatus.APPLIED if attempts < 5 else EditStatus.FAILED,
        EditStatus.APPLIED,
    }


def test_an_attempt_that_cannot_be_given_back_since_a_person_holds_its_row_makes_no_other_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        post, other = factories.post(tx), factories.post(tx)
        taken, free = factories.edit(tx, post, {"caption": "one"}), factories.edit(tx, other, {"caption": "two"})
    people: list[Any] = []

    def lost_and_held(tx: Any, *_: Any, **__: Any) -> None:
        people.append(engine.connect())
        people[0].execute(text("SELECT 1 FROM edits WHERE id = :id FOR UPDATE"), {"id": taken})
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with monkeypatch.context() as patch:
        patch.setattr(batches, "finalize", lost_and_held)
        with pytest.raises(Exception, match="terminat"):
            apply_edits([post, other])
    assert [factories.row(engine, "edits", edit).attempts for edit in (taken, free)] == [1, 0]
    people[0].close()
    EditAttempts.give_back()
    assert [factories.row(engine, "edits", edit).attempts for edit in (taken, free)] == [0, 0]


def test_the_long_queue_of_a_post_one_of_whose_edits_a_person_holds_does_not_ring_without_end(
    engine: Engine,
) -> None:
    with engine.begin() as tx:
        post, free = factories.post(tx), factories.post(tx)
        taken, *_ = [factories.edit(tx, post, {"caption": f"later {number}"}) for number in range(1001)]
        behind = factories.edit(tx, free, {"caption": "now"})
    with edits_locked_by_a_person(engine, taken):
        applied = apply_edits([post, free])
        assert (applied.results, set(applied.follow_ups.contended), applied.follow_ups.edits) == ([], {post}, [free])
        assert [end.id for end in apply_edits(applied.follow_ups.edits).results] == [behind]


def test_doorbells_for_unknown_and_idle_posts_are_no_ops(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    applied = apply_edits([post, "post_nobody", post])
    assert (applied.results, applied.follow_ups.contended, applied.follow_ups.edits) == ([], [], [])


def test_a_task_stops_at_a_thousand_edits_and_rings_on(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        for number in range(1001):
            factories.edit(tx, post, {"caption": str(number)})
    applied = apply_edits([post])
    assert (len(applied.results), applied.follow_ups.edits) == (1000, [post])
    assert len(apply_edits(applied.follow_ups.edits).results) == 1
    assert factories.row(engine, "posts", post).caption == "1000"


def test_a_move_of_a_post_that_waits_for_its_render_leaves_the_renders_mark_alone(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.slides(tx, enqueued_revision=1, enqueued_at=factories.soon(0))
        local = factories.soon(300).strftime("%Y-%m-%dT%H:%M")
        factories.edit(tx, post, {"scheduledTime": local, "timezone": "Europe/London"})
    applied = apply_edits([post])
    stored = factories.row(engine, "posts", post)
    assert (stored.schedule_revision, stored.enqueued_revision, applied.follow_ups.renders) == (2, 1, [])
