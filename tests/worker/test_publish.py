"""Publishing: claims and their fences, and what waits in the queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.store import StaleWriteError, db
from shared.store import claims as claims_store
from shared.store.claims import NewClaim
from tests import factories
from tests.public_fields import PUBLIC_FIELDS
from tests.worker.bulk import edits_locked_by_a_person
from tests.worker.fake_services import (
    PAST,
    FakeServices,
    at,
    attempts,
    change,
    due,
    fake_services,
    old_edit,
    publish_now,
)
from worker import apply, publish
from worker.follow_ups import SNOOZE, Publish
from worker.published import Published

__all__ = ["due", "fake_services"]


def test_a_post_that_is_due_is_called_for_once_and_is_posted(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    assert publish_now((due, 1))[0] == {due: "done"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, stored.revision) == ("posted", "tt_1", 2)
    assert (stored.claim_kind, stored.claim_token, stored.posted_at is not None) == (None, None, True)
    (attempt,) = attempts(engine, due)
    (asked,) = fake_services.asked
    assert (asked.kind, asked.key, asked.attempt, asked.body) == ("publish", attempt.idempotency_key, 1, attempt.body)
    assert (attempt.outcome, attempt.schedule_revision) == ("done", 1)
    assert attempt.finished_at >= attempt.started_at


def test_the_publisher_is_sent_the_public_fields_and_what_a_render_made(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        post = factories.slides(
            tx, status="generated", scheduled_time=factories.soon(PAST), rendered_url="https://cdn.example.com/made.mp4"
        )
    publish_now((post, 1))
    sent = fake_services.asked[0].post
    assert list(sent) == [*PUBLIC_FIELDS, "renderedUrl", "slideDuration"]
    assert (sent["renderedUrl"], sent["slideDuration"]) == ("https://cdn.example.com/made.mp4", 4)


def test_a_task_run_twice_publishes_once(engine: Engine, fake_services: FakeServices, due: str) -> None:
    publish_now((due, 1), (due, 1))
    assert publish_now((due, 1))[0] == {due: "posted"}
    assert len(fake_services.asked) == 1


def test_a_message_of_an_earlier_time_ends_as_superseded(engine: Engine, fake_services: FakeServices, due: str) -> None:
    change(engine, "posts", due, schedule_revision=3)
    assert publish_now((due, 1), (due, 2))[0] == {due: "superseded"}
    assert publish_now((due, 1), (due, 3))[0] == {due: "done"}
    assert len(fake_services.asked) == 1


def test_a_deleted_or_unknown_post_is_gone(engine: Engine, fake_services: FakeServices, due: str) -> None:
    change(engine, "posts", due, deleted_at="sql:now()")
    assert publish_now((due, 1), ("post_nobody", 1))[0] == {due: "gone", "post_nobody": "gone"}
    assert fake_services.asked == []


def test_a_message_that_comes_early_by_the_databases_clock_ends_and_counts_the_rest_in_seconds(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        near = factories.post(tx, scheduled_time=datetime.now(UTC) + timedelta(seconds=30))
        far = factories.post(tx, scheduled_time=factories.soon(10))
    outcomes, rung = publish_now((near, 1), (far, 1))
    assert outcomes == {near: "not_due", far: "not_due"}
    ((seconds, message),) = rung.snoozes
    assert message == Publish(near, 1)
    assert 25 < seconds <= 30
    assert fake_services.asked == []


def test_what_waits_in_the_queue_goes_out_with_the_post(engine: Engine, fake_services: FakeServices, due: str) -> None:
    with engine.begin() as tx:
        edit = factories.edit(tx, due, {"caption": "in time"})
    assert publish_now((due, 1))[0] == {due: "done"}
    assert fake_services.asked[0].post["caption"] == "in time"
    assert factories.row(engine, "edits", edit).status == "applied"


def test_an_edit_committed_after_the_ordinary_apply_still_goes_out_with_the_post(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        factories.edit(tx, due, {"caption": "first wave"})
    ordinary = apply.apply_edits

    def slipping_in(post_ids: Any) -> Any:
        applied = ordinary(post_ids)
        with engine.begin() as tx:
            factories.edit(tx, due, {"caption": "slipped in"})
        return applied

    monkeypatch.setattr(publish, "apply_edits", slipping_in)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert fake_services.asked[0].post["caption"] == "slipped in"


def test_a_waiting_edit_that_moves_the_post_keeps_it_from_going_out(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        factories.edit(tx, due, at(600))
    outcomes, rung = publish_now((due, 1))
    assert (outcomes, rung.snoozes, fake_services.asked) == ({due: "not_due"}, [], [])
    assert factories.row(engine, "posts", due).schedule_revision == 2


def test_a_stream_of_time_edits_cannot_starve_a_publish(engine: Engine, fake_services: FakeServices, due: str) -> None:
    # Each of them moves the fence while the message is being looked at; the post stays due all the same.
    with engine.begin() as tx:
        for minutes in (20, 21, 22):
            old_edit(tx, due, at(-minutes))
    outcomes, rung = publish_now((due, 1))
    assert outcomes == {due: "done"}
    assert rung.publishes == []
    assert attempts(engine, due)[0].schedule_revision == 4


def test_an_edit_that_makes_the_post_need_a_render_keeps_it_from_going_out(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        post = factories.slides(
            tx, status="generated", scheduled_time=factories.soon(PAST), rendered_url="https://x.example/1"
        )
        factories.edit(tx, post, {"soundId": "sound_2"})
    outcomes, rung = publish_now((post, 1))
    assert (outcomes, rung.renders, fake_services.asked) == ({post: "pending_render"}, [(post, 2)], [])


def test_a_post_one_of_whose_edits_a_person_holds_is_not_published_and_its_neighbour_is(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = factories.post(tx, scheduled_time=factories.soon(PAST))
        taken = factories.edit(tx, due, {"caption": "second"})
    with edits_locked_by_a_person(engine, taken):
        outcomes, rung = publish_now((due, 1), (neighbour, 1))
        assert outcomes == {due: "edits_first", neighbour: "done"}
        assert rung.snoozes == [(SNOOZE, Publish(due, 1))]
    publish_now((due, 1))
    assert factories.row(engine, "posts", due).status == "posted"
    assert fake_services.asked[-1].post["caption"] == "second"


def test_an_isolated_edit_is_left_to_edits_apply_and_the_publish_comes_back_without_calling_for_more(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = factories.post(tx, scheduled_time=factories.soon(PAST))
        tried = factories.edit(tx, due, {"caption": "poison"})
    change(engine, "edits", tried, attempts=1)
    # The ordinary apply would run it isolated; here its worker is busy.
    done = Published()
    claimed = publish.claim({due: 1, neighbour: 1}, done)
    assert [called.attempt.post_id for called in claimed] == [neighbour]
    assert done.outcomes[due] == "edits_first"
    assert (done.follow_ups.edits_first, done.follow_ups.snoozes) == ([due], [(SNOOZE, Publish(due, 1))])
    assert factories.row(engine, "edits", tried).attempts == 1
    stored = factories.row(engine, "posts", due)
    assert (stored.claim_kind, stored.enqueued_revision, stored.enqueued_at is not None) == (None, 1, True)


def test_a_post_that_a_person_holds_comes_back_and_its_neighbours_go_out(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = factories.post(tx, scheduled_time=factories.soon(PAST))
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        outcomes, rung = publish_now((due, 1), (neighbour, 1))
    assert outcomes == {due: "contended", neighbour: "done"}
    assert rung.snoozes == [(SNOOZE, Publish(due, 1))]


def test_a_claim_that_has_not_expired_is_nobody_elses(engine: Engine, fake_services: FakeServices, due: str) -> None:
    assert len(publish.claim({due: 1}, Published())) == 1
    assert publish_now((due, 1))[0] == {due: "claimed"}
    assert fake_services.asked == []


def test_a_move_and_a_move_back_publish_once_at_the_newest_time(engine: Engine, fake_services: FakeServices) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(PAST), timezone="Asia/Tokyo")
        for minutes in (600, PAST):
            old_edit(tx, post, at(minutes))
    apply.apply_edits([post])
    assert publish_now((post, 1))[0] == {post: "superseded"}
    assert publish_now((post, 2))[0] == {post: "superseded"}
    assert publish_now((post, 3), (post, 3))[0] == {post: "done"}
    assert publish_now((post, 1), (post, 3))[0] == {post: "posted"}
    assert len(fake_services.asked) == 1


@pytest.mark.parametrize(
    ("seen", "status"), [(None, "generated"), ("another", "generated"), ("mine", "pending_render")]
)
def test_a_claim_whose_row_is_not_as_it_was_seen_is_refused_by_its_guard(
    engine: Engine, due: str, seen: str | None, status: str
) -> None:
    change(engine, "posts", due, claim_kind="publish", claim_token="mine", claim_expires_at="sql:now()")
    with pytest.raises(StaleWriteError), db.transaction() as tx:
        claims_store.take_claims(tx, [NewClaim(due, "publish", "new", status, seen)], 60)
    assert factories.row(engine, "posts", due).claim_token == "mine"
