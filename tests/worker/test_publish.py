"""Publishing: claims and their fences, keys and bodies, ends and tries."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared import db
from shared.services import Reply
from shared.store import StaleWriteError
from shared.store import claims as claims_store
from shared.store.claims import NewClaim
from tests import rows
from tests.worker.outside import (
    Outside,
    Rung,
    at,
    attempts,
    change,
    expire,
    in_thread,
    old_edit,
    outside,
    publish_now,
    until,
)
from worker import apply, publish
from worker.calls import Calls

__all__ = ["outside"]

PAST = -5
NEVER = Reply("never_started", message="connection refused")
UNKNOWN = Reply("unknown", message="timed out")
BROKEN = Reply("server_error", message="503")


@pytest.fixture
def due(engine: Engine) -> str:
    with engine.begin() as tx:
        return rows.post(tx, scheduled_time=rows.soon(PAST))


def publish_rows(engine: Engine, post: str) -> list[tuple[Any, ...]]:
    return [(row.try_number, row.outcome) for row in attempts(engine, post)]


def test_a_post_that_is_due_is_called_for_once_and_is_posted(engine: Engine, outside: Outside, due: str) -> None:
    assert publish_now((due, 1))[0] == {due: "done"}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id, stored.revision) == ("posted", "tt_1", 2)
    assert (stored.claim_kind, stored.claim_token, stored.posted_at is not None) == (None, None, True)
    (attempt,) = attempts(engine, due)
    (asked,) = outside.asked
    assert (asked.kind, asked.key, asked.attempt, asked.body) == ("publish", attempt.idempotency_key, 1, attempt.body)
    assert (attempt.outcome, attempt.schedule_revision) == ("done", 1)
    assert attempt.finished_at >= attempt.started_at


def test_the_publisher_is_sent_the_12_fields_and_what_a_render_made(engine: Engine, outside: Outside) -> None:
    with engine.begin() as tx:
        post = rows.slides(
            tx, status="generated", scheduled_time=rows.soon(PAST), rendered_url="https://cdn.example.com/made.mp4"
        )
    publish_now((post, 1))
    sent = outside.asked[0].post
    assert list(sent) == [
        *("postId", "accountId", "platform", "contentType", "contentUrl", "thumbnailUrl", "caption", "soundId"),
        *("timezone", "scheduledTime", "status", "createdAt", "renderedUrl", "slideDuration"),
    ]
    assert (sent["renderedUrl"], sent["slideDuration"]) == ("https://cdn.example.com/made.mp4", 4)


def test_a_task_run_twice_publishes_once(engine: Engine, outside: Outside, due: str) -> None:
    publish_now((due, 1), (due, 1))
    assert publish_now((due, 1))[0] == {due: "posted"}
    assert len(outside.asked) == 1


def test_a_message_of_an_earlier_time_ends_as_superseded(engine: Engine, outside: Outside, due: str) -> None:
    change(engine, "posts", due, schedule_revision=3)
    assert publish_now((due, 1), (due, 2))[0] == {due: "superseded"}
    assert publish_now((due, 1), (due, 3))[0] == {due: "done"}
    assert len(outside.asked) == 1


def test_a_deleted_or_unknown_post_is_gone(engine: Engine, outside: Outside, due: str) -> None:
    change(engine, "posts", due, deleted_at="sql:now()")
    assert publish_now((due, 1), ("post_nobody", 1))[0] == {due: "gone", "post_nobody": "gone"}
    assert outside.asked == []


def test_a_message_that_comes_early_by_the_databases_clock_ends_and_counts_the_rest_in_seconds(
    engine: Engine, outside: Outside
) -> None:
    with engine.begin() as tx:
        near = rows.post(tx, scheduled_time=datetime.now(UTC) + timedelta(seconds=30))
        far = rows.post(tx, scheduled_time=rows.soon(10))
    outcomes, rung = publish_now((near, 1), (far, 1))
    assert outcomes == {near: "early", far: "early"}
    ((post, revision, seconds),) = rung.early
    assert (post, revision) == (near, 1)
    assert 25 < seconds <= 30
    assert outside.asked == []


def test_what_waits_in_the_queue_goes_out_with_the_post(engine: Engine, outside: Outside, due: str) -> None:
    with engine.begin() as tx:
        edit = rows.edit(tx, due, {"caption": "in time"})
    assert publish_now((due, 1))[0] == {due: "done"}
    assert outside.asked[0].post["caption"] == "in time"
    assert rows.row(engine, "edits", edit).status == "applied"


def test_an_edit_committed_after_the_ordinary_apply_still_goes_out_with_the_post(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        rows.edit(tx, due, {"caption": "first wave"})
    ordinary = apply.apply_edits

    def slipping_in(post_ids: Any) -> Any:
        applied = ordinary(post_ids)
        with engine.begin() as tx:
            rows.edit(tx, due, {"caption": "slipped in"})
        return applied

    monkeypatch.setattr(publish, "apply_edits", slipping_in)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert outside.asked[0].post["caption"] == "slipped in"


def test_a_waiting_edit_that_moves_the_post_keeps_it_from_going_out(engine: Engine, outside: Outside, due: str) -> None:
    with engine.begin() as tx:
        rows.edit(tx, due, at(600))
    outcomes, rung = publish_now((due, 1))
    assert (outcomes, rung.early, outside.asked) == ({due: "early"}, [], [])
    assert rows.row(engine, "posts", due).schedule_revision == 2


def test_a_stream_of_time_edits_cannot_starve_a_publish(engine: Engine, outside: Outside, due: str) -> None:
    # Each of them moves the fence while the message is being looked at; the post stays due all the same.
    with engine.begin() as tx:
        for minutes in (20, 21, 22):
            old_edit(tx, due, at(-minutes))
    outcomes, rung = publish_now((due, 1))
    assert outcomes == {due: "done"}
    assert rung.publishes == []
    assert attempts(engine, due)[0].schedule_revision == 4


def test_an_edit_that_makes_the_post_need_a_render_keeps_it_from_going_out(engine: Engine, outside: Outside) -> None:
    with engine.begin() as tx:
        post = rows.slides(tx, status="generated", scheduled_time=rows.soon(PAST), rendered_url="https://x.example/1")
        rows.edit(tx, post, {"soundId": "sound_2"})
    outcomes, rung = publish_now((post, 1))
    assert (outcomes, rung.renders, outside.asked) == ({post: "pending_render"}, [(post, 2)], [])


def test_a_tried_edit_is_left_to_edits_apply_and_the_publish_comes_back_without_calling_for_more(
    engine: Engine, outside: Outside, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = rows.post(tx, scheduled_time=rows.soon(PAST))
        tried = rows.edit(tx, due, {"caption": "poison"})
    change(engine, "edits", tried, attempts=1)
    # The ordinary apply would run it alone; here its worker is busy.
    done = publish.Published()
    claimed = publish.claim({due: 1, neighbour: 1}, done)
    assert [called.attempt.post_id for called in claimed] == [neighbour]
    assert done.outcomes[due] == "edits_first"
    assert (done.edits, done.again) == ([due], [(due, 1)])
    assert rows.row(engine, "edits", tried).attempts == 1
    stored = rows.row(engine, "posts", due)
    assert (stored.claim_kind, stored.enqueued_revision, stored.enqueued_at is not None) == (None, 1, True)


def test_a_post_that_a_person_holds_comes_back_and_its_neighbours_go_out(
    engine: Engine, outside: Outside, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = rows.post(tx, scheduled_time=rows.soon(PAST))
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        outcomes, rung = publish_now((due, 1), (neighbour, 1))
    assert outcomes == {due: "held", neighbour: "done"}
    assert rung.again == [(due, 1)]


def test_a_claim_that_has_not_expired_is_nobody_elses(engine: Engine, outside: Outside, due: str) -> None:
    assert len(publish.claim({due: 1}, publish.Published())) == 1
    assert publish_now((due, 1))[0] == {due: "claimed"}
    assert outside.asked == []


def test_an_expired_claim_is_retaken_with_the_same_key_and_the_byte_identical_body(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lost,) = publish.claim({due: 1}, publish.Published())
    expire(engine, due)
    # A newer version of ours might build another body out of the same row: what may have been sent is sent again.
    monkeypatch.setattr(publish.posts, "service_body", lambda *_: '{"another": "body"}')
    assert publish_now((due, 1))[0] == {due: "done"}
    (asked,) = outside.asked
    assert (asked.key, asked.body, asked.attempt) == (lost.attempt.idempotency_key, lost.attempt.body, 2)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "done")]
    assert attempts(engine, due)[0].message == "its holder was gone"


def test_an_edit_is_refused_while_an_expired_claim_waits_to_be_retaken(
    engine: Engine, outside: Outside, due: str
) -> None:
    publish.claim({due: 1}, publish.Published())
    expire(engine, due)
    with engine.begin() as tx:
        edit = rows.edit(tx, due, {"caption": "too late"})
    assert publish_now((due, 1))[0] == {due: "done"}
    apply.apply_edits([due])
    ended = rows.row(engine, "edits", edit)
    assert (ended.status, ended.error_details[0]["message"]) == ("rejected", "being published")
    assert outside.asked[0].post["caption"] == "first"


def test_a_claim_whose_holders_die_every_time_is_given_up_as_unknown(
    engine: Engine, outside: Outside, due: str
) -> None:
    for _ in range(3):
        assert len(publish.claim({due: 1}, publish.Published())) == 1
        expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "failed"}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.failure_reason, stored.claim_kind) == ("failed", "publish_outcome_unknown", None)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, "unknown"), (3, "unknown")]
    assert outside.asked == []


def test_a_call_that_never_started_gives_the_post_back_for_edits_and_keeps_its_key(
    engine: Engine, outside: Outside, due: str
) -> None:
    outside.replies = [NEVER]
    assert publish_now((due, 1))[0] == {due: "never_started"}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind, stored.enqueued_revision) == ("generated", None, None)
    assert stored.retry_at > datetime.now(UTC)
    assert publish_now((due, 1))[0] == {due: "early"}
    change(engine, "posts", due, retry_at="sql:now()")
    assert publish_now((due, 1))[0] == {due: "done"}
    first, second = outside.asked
    assert (first.key, first.body) == (second.key, second.body)
    assert (first.attempt, second.attempt) == (1, 2)


def test_only_an_edit_that_changes_the_body_makes_a_new_key(engine: Engine, outside: Outside, due: str) -> None:
    outside.replies = [NEVER, NEVER]
    publish_now((due, 1))
    for caption in ("first", "second"):
        with engine.begin() as tx:
            rows.edit(tx, due, {"caption": caption})
        change(engine, "posts", due, retry_at="sql:now()")
        publish_now((due, 1))
    keys = [asked.key for asked in outside.asked]
    assert keys[0] == keys[1] != keys[2]
    assert [asked.attempt for asked in outside.asked] == [1, 2, 1]


def test_a_caption_edit_does_not_cut_the_wait_for_the_next_try_short_but_a_move_does(
    engine: Engine, outside: Outside, due: str
) -> None:
    outside.replies = [NEVER]
    publish_now((due, 1))
    with engine.begin() as tx:
        rows.edit(tx, due, {"caption": "second"})
    assert publish_now((due, 1))[0] == {due: "early"}
    with engine.begin() as tx:
        old_edit(tx, due, at(-9))
    assert publish_now((due, 1))[0] == {due: "done"}


def test_a_connection_refused_after_a_try_that_may_have_been_sent_does_not_open_the_post(
    engine: Engine, outside: Outside, due: str
) -> None:
    outside.replies = [UNKNOWN, NEVER]
    publish_now((due, 1))
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "never_started"}
    stored = rows.row(engine, "posts", due)
    assert (stored.claim_kind, stored.retry_at) == ("publish", None)
    expire(engine, due)
    publish_now((due, 1))
    assert len({(asked.key, asked.body) for asked in outside.asked}) == 1


@pytest.mark.parametrize("reply", [BROKEN, UNKNOWN])
def test_a_call_that_may_have_been_sent_keeps_the_post_closed_until_its_next_try(
    engine: Engine, outside: Outside, due: str, reply: Reply
) -> None:
    outside.replies = [reply]
    outcomes, rung = publish_now((due, 1))
    assert outcomes == {due: reply.kind}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind) == ("generated", "publish")
    assert datetime.now(UTC) < stored.claim_expires_at < datetime.now(UTC) + timedelta(seconds=3)
    assert rung.later == [(due, 1, stored.claim_expires_at)]
    with engine.begin() as tx:
        edit = rows.edit(tx, due, {"caption": "too late"})
    apply.apply_edits([due])
    assert rows.row(engine, "edits", edit).error_details[0]["message"] == "being published"
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert len({(asked.key, asked.body) for asked in outside.asked}) == 1


def test_a_refusal_fails_the_post_with_its_words(engine: Engine, outside: Outside, due: str) -> None:
    outside.replies = [Reply("refused", message="the account is suspended")]
    assert publish_now((due, 1))[0] == {due: "failed"}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.failure_reason, stored.revision) == ("failed", "the account is suspended", 2)
    assert publish_rows(engine, due) == [(1, "refused")]


def test_ten_tries_that_the_publisher_does_not_take_are_enough(engine: Engine, outside: Outside, due: str) -> None:
    outside.usual = BROKEN
    for _ in range(10):
        outcomes, _ = publish_now((due, 1))
        if rows.row(engine, "posts", due).claim_kind:
            expire(engine, due)
    assert outcomes == {due: "failed"}
    assert rows.row(engine, "posts", due).failure_reason == "publisher_unavailable"
    assert [asked.attempt for asked in outside.asked] == list(range(1, 11))
    assert len({(asked.key, asked.body) for asked in outside.asked}) == 1


def test_three_unknown_outcomes_are_enough(engine: Engine, outside: Outside, due: str) -> None:
    outside.usual = UNKNOWN
    for _ in range(3):
        outcomes, _ = publish_now((due, 1))
        if rows.row(engine, "posts", due).claim_kind:
            expire(engine, due)
    assert outcomes == {due: "failed"}
    assert rows.row(engine, "posts", due).failure_reason == "publish_outcome_unknown"
    assert len(outside.asked) == 3


def test_a_finish_that_comes_after_its_claim_was_retaken_changes_nothing(
    engine: Engine, outside: Outside, due: str
) -> None:
    def retaken(_: Any) -> Reply:
        expire(engine, due)
        assert len(publish.claim({due: 1}, publish.Published())) == 1
        return Reply("done", {"platformPostId": "late"})

    outside.replies = [retaken]
    assert publish_now((due, 1))[0] == {due: "stale"}
    stored = rows.row(engine, "posts", due)
    assert (stored.status, stored.claim_kind, stored.platform_post_id) == ("generated", "publish", None)
    assert publish_rows(engine, due) == [(1, "unknown"), (2, None)]


def test_a_claim_too_old_to_begin_is_not_called_for(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claimed,) = publish.claim({due: 1}, publish.Published())
    old = publish.Called(claimed.attempt, None, claimed.claimed_at, claimed.began - 31)
    assert publish._call(old).kind == "never_started"
    assert outside.asked == []


def test_a_finish_waits_for_a_row_that_a_person_holds_and_its_neighbours_do_not(
    engine: Engine, outside: Outside, due: str
) -> None:
    with engine.begin() as tx:
        neighbour = rows.post(tx, scheduled_time=rows.soon(PAST))
    people: list[Any] = []

    def taken(_: Any) -> Reply:
        if not people:
            people.append(engine.connect())
            people[0].execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        return Reply("done", {})

    outside.usual = taken
    with in_thread(lambda: publish_now((due, 1), (neighbour, 1))):
        until(lambda: rows.row(engine, "posts", neighbour).status == "posted")
        assert rows.row(engine, "posts", due).status == "generated"
        people[0].rollback()
        people[0].close()
    assert rows.row(engine, "posts", due).status == "posted"


def test_a_finish_outlasts_a_database_that_goes_away(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, lost = claims_store.finish_publishes, []

    def cut(tx: Any, finishes: Any) -> Any:
        if finishes and not lost:
            lost.append(1)
            tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return finish(tx, finishes)

    monkeypatch.setattr(claims_store, "finish_publishes", cut)
    assert publish_now((due, 1))[0] == {due: "done"}
    assert (lost, len(outside.asked)) == ([1], 1)


def test_a_surprise_in_the_claim_loses_no_call_that_is_being_made(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as tx:
        second = rows.post(tx, scheduled_time=rows.soon(PAST))
    claim = publish.claim

    def surprising(fenced: Any, done: Any) -> Any:
        if second in fenced:
            raise ZeroDivisionError
        return claim(fenced, done)

    monkeypatch.setattr(publish, "claim", surprising)
    calls = Calls(1)
    with pytest.raises(ZeroDivisionError):
        publish.publish([(due, 1), (second, 1)], calls, Rung().hear)
    assert rows.row(engine, "posts", due).status == "posted"
    assert calls.take(5, 0) == 1


def test_posts_beyond_the_room_for_calls_are_claimed_when_there_is_room(engine: Engine, outside: Outside) -> None:
    with engine.begin() as tx:
        posts = [rows.post(tx, scheduled_time=rows.soon(PAST)) for _ in range(7)]
    assert publish_now(*((post, 1) for post in posts), room=2)[0] == dict.fromkeys(posts, "done")
    assert len(outside.asked) == 7


def test_without_room_for_calls_nothing_is_claimed(
    engine: Engine, outside: Outside, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 0.01)
    calls = Calls(1)
    assert calls.take(1, 0) == 1
    assert publish.publish([(due, 1)], calls, Rung().hear).outcomes == {due: "busy"}
    assert rows.row(engine, "posts", due).claim_kind is None


def test_publishes_take_a_fixed_number_of_statements_whatever_the_number_of_posts(
    engine: Engine, outside: Outside
) -> None:
    def statements(count: int) -> int:
        with engine.begin() as tx:
            posts = [rows.post(tx, scheduled_time=rows.soon(PAST)) for _ in range(count)]
        with rows.statements() as seen:
            called = publish.claim(dict.fromkeys(posts, 1), publish.Published())
        assert len(called) == count
        return len(seen)

    statements(1)  # SQLAlchemy and psycopg ask a new server some questions of their own
    assert statements(1) == statements(40) == 6


def test_a_move_and_a_move_back_publish_once_at_the_newest_time(engine: Engine, outside: Outside) -> None:
    with engine.begin() as tx:
        post = rows.post(tx, scheduled_time=rows.soon(PAST), timezone="Asia/Tokyo")
        for minutes in (600, PAST):
            old_edit(tx, post, at(minutes))
    apply.apply_edits([post])
    assert publish_now((post, 1))[0] == {post: "superseded"}
    assert publish_now((post, 2))[0] == {post: "superseded"}
    assert publish_now((post, 3), (post, 3))[0] == {post: "done"}
    assert publish_now((post, 1), (post, 3))[0] == {post: "posted"}
    assert len(outside.asked) == 1


@pytest.mark.parametrize(
    ("seen", "status"), [(None, "generated"), ("another", "generated"), ("mine", "pending_render")]
)
def test_a_claim_whose_row_is_not_as_it_was_seen_is_refused_by_its_guard(
    engine: Engine, due: str, seen: str | None, status: str
) -> None:
    change(engine, "posts", due, claim_kind="publish", claim_token="mine", claim_expires_at="sql:now()")
    with pytest.raises(StaleWriteError), db.transaction() as tx:
        claims_store.take_claims(tx, [NewClaim(due, "publish", "new", status, seen)], 60)
    assert rows.row(engine, "posts", due).claim_token == "mine"
