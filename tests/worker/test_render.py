"""Rendering: claims fenced by the content revision, results, failures, and edits that come in between."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from tests import factories
from tests.worker.bulk import edits_locked_by_a_person
from tests.worker.fake_services import MADE, FakeServices, at, change, expire, fake_services, publish_now, render_now
from worker import apply, render
from worker.follow_ups import SNOOZE, Render
from worker.render import Rendering

__all__ = ["fake_services"]

URLS = ["https://cdn.example.com/8.jpg", "https://cdn.example.com/9.jpg"]
CONTENT = {"contentType": "slides", "contentUrl": URLS}
BROKEN = Reply("server_error", message="503")


@pytest.fixture
def slides(engine: Engine, fake_services: FakeServices) -> str:
    fake_services.usual = MADE
    with engine.begin() as tx:
        return factories.slides(tx, scheduled_time=factories.soon(60))


def claimed(post: str, revision: int = 1) -> Any:
    return render._claim(post, revision, Rendering())


def queued(engine: Engine, post: str, changes: dict[str, Any]) -> str:
    with engine.begin() as tx:
        return factories.edit(tx, post, changes)


def test_a_finished_render_makes_the_post_ready_and_leaves_its_source(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    source = factories.row(engine, "posts", slides).content_url
    outcome, rung = render_now(slides)
    stored = factories.row(engine, "posts", slides)
    assert (outcome, stored.status, stored.claim_kind, stored.revision) == ("done", "generated", None, 2)
    assert (stored.rendered_url, stored.content_url) == ("https://cdn.example.com/made.mp4", source)
    assert stored.thumbnail_url == "https://cdn.example.com/m.jpg"
    assert rung.publishes == []
    (asked,) = fake_services.asked
    assert (asked.kind, asked.post["slideDuration"], asked.post["renderedUrl"]) == ("render", 4, None)


def test_a_post_that_waited_for_its_render_goes_out_right_after_it(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    change(engine, "posts", slides, scheduled_time=factories.soon(-5))
    _, rung = render_now(slides)
    assert rung.publishes == [(slides, 1, None)]
    assert factories.row(engine, "posts", slides).enqueued_revision == 1
    fake_services.usual = Reply("done", {})
    assert publish_now((slides, 1))[0] == {slides: "done"}
    assert fake_services.asked[-1].post["renderedUrl"] == "https://cdn.example.com/made.mp4"


def test_a_render_that_ends_within_the_horizon_enqueues_the_publish_for_its_time(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    goes = datetime.now(UTC) + timedelta(seconds=40)
    change(engine, "posts", slides, scheduled_time=goes)
    assert render_now(slides)[1].publishes == [(slides, 1, goes)]


def test_a_message_of_older_content_ends_as_superseded(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    change(engine, "posts", slides, content_revision=2)
    assert render_now(slides, 1)[0] == "superseded"
    assert render_now("post_nobody", 1)[0] == "gone"
    assert fake_services.asked == []


def test_a_render_run_twice_is_made_once(engine: Engine, fake_services: FakeServices, slides: str) -> None:
    render_now(slides)
    assert render_now(slides)[0] == "generated"
    assert len(fake_services.asked) == 1


def test_a_content_edit_that_waits_is_rendered_and_rung_for_no_second_time(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    queued(engine, slides, CONTENT)
    outcome, rung = render_now(slides, 1)
    assert (outcome, rung.renders) == ("done", [])
    assert fake_services.asked[0].post["contentUrl"] == URLS


def test_a_waiting_edit_after_which_no_render_is_needed_makes_none(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    queued(engine, slides, {"contentType": "video", "contentUrl": "https://cdn.example.com/b.mp4"})
    assert render_now(slides)[0] == "generated"
    assert fake_services.asked == []


def test_a_content_edit_during_a_render_keeps_the_old_result_out_and_queues_the_new_render_once(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    def edited(_: Any) -> Reply:
        queued(engine, slides, CONTENT)
        applied = apply.apply_edits([slides])
        assert applied.follow_ups.renders == [(slides, 2)]
        return MADE

    fake_services.replies = [edited]
    outcome, rung = render_now(slides)
    stored = factories.row(engine, "posts", slides)
    assert (outcome, rung.renders, rung.snoozes) == ("stale", [], [])
    assert (stored.status, stored.rendered_url, stored.claim_kind) == ("pending_render", None, None)
    assert render_now(slides, 1)[0] == "superseded"
    assert render_now(slides, 2)[0] == "done"
    assert [asked.post["contentUrl"] for asked in fake_services.asked][1:] == [URLS]


def test_a_stale_result_does_not_land_on_a_render_that_began_since(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    old = claimed(slides)
    queued(engine, slides, CONTENT)
    apply.apply_edits([slides])
    new = claimed(slides, 2)
    assert render._finish(old, MADE).outcome == "stale"
    assert render._finish(old, BROKEN).outcome == "stale"
    assert factories.row(engine, "posts", slides).claim_token == new.token


def test_caption_and_time_edits_are_applied_during_a_render_and_its_result_lands(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    def edited(_: Any) -> Reply:
        queued(engine, slides, {"caption": "meanwhile"} | at(120))
        apply.apply_edits([slides])
        return MADE

    fake_services.replies = [edited]
    assert render_now(slides)[0] == "done"
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.caption, stored.schedule_revision) == ("generated", "meanwhile", 2)


def test_a_refused_render_fails_the_post_with_its_words(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    fake_services.replies = [Reply("refused", message="slide 2 is no image")]
    assert render_now(slides)[0] == "failed"
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.failure_reason, stored.claim_kind) == ("failed", "slide 2 is no image", None)


def test_an_edit_that_waits_mends_a_render_that_fails(engine: Engine, fake_services: FakeServices, slides: str) -> None:
    def edited(_: Any) -> Reply:
        queued(engine, slides, CONTENT)
        return Reply("refused", message="slide 2 is no image")

    fake_services.replies = [edited]
    outcome, rung = render_now(slides)
    assert (outcome, rung.renders) == ("stale", [(slides, 2)])
    assert factories.row(engine, "posts", slides).status == "pending_render"
    assert render_now(slides, 2)[0] == "done"


def test_a_failing_render_does_not_fail_the_post_over_the_head_of_an_isolated_edit(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    def edited(_: Any) -> Reply:
        change(engine, "edits", queued(engine, slides, CONTENT), attempts=1)
        return Reply("refused", message="slide 2 is no image")

    fake_services.replies = [edited]
    outcome, rung = render_now(slides)
    assert (outcome, rung.edits_first, rung.snoozes) == ("edits_first", [slides], [(SNOOZE, Render(slides, 1))])
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.claim_kind, stored.render_tries) == ("pending_render", None, 0)
    assert last_answer(engine, slides) == ("refused", "slide 2 is no image", True)


def test_a_claim_comes_back_while_a_person_holds_an_edit(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    taken, done = queued(engine, slides, {"caption": "second"}), Rendering()
    with edits_locked_by_a_person(engine, taken):
        assert render._claim(slides, 1, done) is None
    assert (done.outcome, done.follow_ups.edits_first) == ("edits_first", [slides])
    assert done.follow_ups.snoozes == [(SNOOZE, Render(slides, 1))]
    assert render._claim(slides, 1, done) is not None


def test_a_claim_does_not_run_an_isolated_edit_and_comes_back(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    change(engine, "edits", queued(engine, slides, {"caption": "poison"}), attempts=2)
    done = Rendering()
    assert render._claim(slides, 1, done) is None
    assert (done.outcome, done.follow_ups.edits_first) == ("edits_first", [slides])
    assert done.follow_ups.snoozes == [(SNOOZE, Render(slides, 1))]
    assert factories.row(engine, "posts", slides).enqueued_at is not None


def test_a_render_of_a_post_that_a_person_holds_comes_back(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": slides})
        outcome, rung = render_now(slides)
    assert (outcome, rung.snoozes, fake_services.asked) == ("contended", [(SNOOZE, Render(slides, 1))], [])


@pytest.mark.parametrize("kind", ["server_error", "never_started", "unknown"])
def test_a_render_that_may_work_later_is_tried_again_under_the_same_key(
    engine: Engine, fake_services: FakeServices, slides: str, kind: Any
) -> None:
    fake_services.replies = [Reply(kind)]
    outcome, rung = render_now(slides)
    stored = factories.row(engine, "posts", slides)
    assert (outcome, stored.status, stored.render_tries, stored.claim_kind) == (kind, "pending_render", 1, None)
    ((seconds, message),) = rung.snoozes
    assert message == Render(slides, 1)
    assert 1 <= seconds <= 2
    assert render_now(slides)[0] == "not_due"
    change(engine, "posts", slides, retry_at="sql:now()")
    assert render_now(slides)[0] == "done"
    assert len({(asked.key, asked.body) for asked in fake_services.asked}) == 1
    assert [asked.attempt for asked in fake_services.asked] == [1, 2]
    assert factories.row(engine, "posts", slides).render_tries == 0


def last_answer(engine: Engine, post: str) -> tuple[Any, ...]:
    """What the row keeps of the latest render: outcome, words, and whether it came just now."""
    stored = factories.row(engine, "posts", post)
    at = stored.render_answered_at
    return stored.render_outcome, stored.render_message, at and datetime.now(UTC) - at < timedelta(minutes=1)


NO_ANSWER = (None, None, None)
GONE = ("unknown", "its worker was gone", True)
ANSWERS = [
    Reply("misconfigured", message="the service answered 401"),
    Reply("server_error", message="503"),
    Reply("never_started", message="connection refused"),
    Reply("unknown", message="timed out"),
    Reply("not_now", message="slow down"),
    Reply("processing", message="the service is still at work"),
]


@pytest.mark.parametrize("reply", ANSWERS, ids=lambda reply: reply.kind)
def test_what_the_renderer_answers_is_kept_until_a_render_is_done_or_the_content_changes(
    engine: Engine, fake_services: FakeServices, slides: str, reply: Reply
) -> None:
    """Red before: a renderer that refused everybody was seen nowhere."""
    fake_services.replies = [reply, reply]
    render_now(slides)
    assert last_answer(engine, slides) == (reply.kind, reply.message, True)
    queued(engine, slides, {"caption": "another"})
    apply.apply_edits([slides])
    assert last_answer(engine, slides) == (reply.kind, reply.message, True)
    queued(engine, slides, CONTENT)
    apply.apply_edits([slides])
    assert last_answer(engine, slides) == NO_ANSWER
    render_now(slides, 2)
    assert last_answer(engine, slides) == (reply.kind, reply.message, True)
    change(engine, "posts", slides, retry_at=None)
    assert render_now(slides, 2)[0] == "done"
    assert last_answer(engine, slides) == NO_ANSWER


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply("refused", message="slide 2 is no image"), "render_refused"),
        (ANSWERS[0], "render_misconfigured"),
        (ANSWERS[1], "render_unavailable"),
        (ANSWERS[2], "render_unavailable"),
        (ANSWERS[3], "render_unavailable"),
        (ANSWERS[4], "render_busy"),
        (ANSWERS[5], "render_busy"),
    ],
    ids=lambda given: given.kind if isinstance(given, Reply) else given,
)
def test_a_post_that_fails_in_its_render_keeps_the_class_and_the_last_words(
    engine: Engine, fake_services: FakeServices, slides: str, reply: Reply, failure: str
) -> None:
    fake_services.replies = [reply]
    change(engine, "posts", slides, render_tries=9, render_waits_since="sql:now() - interval '1 hour'")
    assert render_now(slides)[0] == "failed"
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.failure_class, stored.failure_message) == ("failed", failure, reply.message)
    assert last_answer(engine, slides) == (reply.kind, reply.message, True)


@pytest.mark.parametrize("kind", ["processing", "not_now"])
def test_a_renderer_that_makes_us_wait_uses_up_no_try_for_an_hour(
    engine: Engine, fake_services: FakeServices, slides: str, kind: Any
) -> None:
    fake_services.usual = Reply(kind, retry_after=40)
    for _ in range(12):
        change(engine, "posts", slides, retry_at=None)
        outcome, rung = render_now(slides)
        assert outcome == kind
        ((seconds, _),) = rung.snoozes
        assert 40 <= seconds <= 45
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.render_tries, stored.claim_kind) == ("pending_render", 0, None)
    assert len({(asked.key, asked.body, asked.attempt) for asked in fake_services.asked}) == 1
    change(engine, "posts", slides, retry_at=None, render_waits_since="sql:now() - interval '1 hour'")
    assert render_now(slides)[0] == "failed"
    assert factories.row(engine, "posts", slides).failure_reason == "renderer_unavailable"


def test_new_content_is_waited_for_afresh(engine: Engine, fake_services: FakeServices, slides: str) -> None:
    fake_services.replies = [Reply("processing"), Reply("processing")]
    assert render_now(slides)[0] == "processing"
    change(engine, "posts", slides, render_waits_since="sql:now() - interval '59 minutes'")
    queued(engine, slides, CONTENT)
    apply.apply_edits([slides])
    assert factories.row(engine, "posts", slides).render_waits_since is None
    assert render_now(slides, 2)[0] == "processing"
    assert factories.row(engine, "posts", slides).render_waits_since > datetime.now(UTC) - timedelta(minutes=1)
    change(engine, "posts", slides, retry_at=None)
    assert render_now(slides, 2)[0] == "done"
    assert factories.row(engine, "posts", slides).render_waits_since is None


def test_there_are_never_two_bodies_under_one_key(engine: Engine, fake_services: FakeServices, slides: str) -> None:
    fake_services.replies = [BROKEN]
    render_now(slides)
    queued(engine, slides, {"caption": "another"})
    change(engine, "posts", slides, retry_at="sql:now()")
    render_now(slides)
    first, second = fake_services.asked
    assert first.body != second.body
    assert first.key != second.key


def test_a_caption_edit_does_not_cut_the_wait_for_the_next_try_short(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    fake_services.replies = [BROKEN]
    render_now(slides)
    queued(engine, slides, {"caption": "another"})
    assert render_now(slides)[0] == "not_due"


def test_ten_tries_that_fail_are_enough_and_new_content_starts_afresh(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    fake_services.usual = BROKEN
    for number in range(1, 11):
        change(engine, "posts", slides, retry_at=None)
        assert render_now(slides)[0] == ("failed" if number == 10 else "server_error")
    assert factories.row(engine, "posts", slides).failure_reason == "renderer_unavailable"
    change(engine, "posts", slides, status="pending_render", failure_reason=None, render_tries=9)
    queued(engine, slides, CONTENT)
    assert render_now(slides)[0] == "server_error"
    assert fake_services.asked[-1].attempt == 1
    assert factories.row(engine, "posts", slides).render_tries == 1


def test_an_expired_claim_is_retaken_and_counts_as_a_try(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    lost = claimed(slides)
    assert render_now(slides)[0] == "claimed"
    expire(engine, slides)
    fake_services.replies = [lambda _: MADE if last_answer(engine, slides) == GONE else BROKEN]
    assert render_now(slides)[0] == "done"
    (asked,) = fake_services.asked
    assert (asked.key, asked.body, asked.attempt) == (lost.key, lost.body, 2)


def test_a_render_whose_holders_die_every_time_is_given_up(
    engine: Engine, fake_services: FakeServices, slides: str
) -> None:
    for _ in range(10):
        assert claimed(slides) is not None
        expire(engine, slides)
    assert render_now(slides)[0] == "failed"
    stored = factories.row(engine, "posts", slides)
    assert (stored.failure_reason, stored.failure_class) == ("renderer_unavailable", "render_unavailable")
    assert stored.failure_message == "its worker was gone"
    assert last_answer(engine, slides) == GONE
    assert fake_services.asked == []
