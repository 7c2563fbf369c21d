"""Events for the receiver of webhooks: written in the transaction of their cause, and in no other."""

from typing import Any

import pytest
from sqlalchemy import Engine

from shared.domain.service_answers import Reply
from shared.settings import settings
from shared.store import webhooks as webhooks_store
from tests import factories
from tests.worker.fake_services import FakeServices, at, change, fake_services, publish_now, render_now
from tests.worker.receiver import engine, events
from worker import apply, rescue

__all__ = ["engine", "fake_services"]


def test_the_ends_of_edits_are_told_in_their_order_and_never_a_caption(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(60), timezone="Asia/Tokyo")
        poison = factories.edit(tx, post, {"caption": "secret one"})
        moving = factories.edit(tx, post, {"caption": "secret two"} | at(120))
        late = factories.edit(tx, post, {"caption": "secret three"}, if_match=['"77"'])
    change(engine, "edits", poison, attempts=5)
    applied = apply.apply_edits([post])
    assert applied.follow_ups.webhooks == [post]
    apply.apply_edits([post])
    assert [event.type for event in events(engine)] == [
        "edit.failed",
        "edit.applied",
        "post.rescheduled",
        "edit.rejected",
    ]
    failed, done, moved, rejected = (event.data for event in events(engine))
    common = {"workspaceId": factories.WORKSPACE, "postId": post}
    assert done == common | {"editId": moving, "revision": 2}
    assert moved == common | {
        "editId": moving,
        "revision": 2,
        "before": factories.soon(60).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "after": factories.soon(120).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert (failed["editId"], failed["error"]["code"], failed["revision"]) == (poison, "internal", 1)
    assert (rejected["editId"], rejected["error"]["code"], rejected["revision"]) == (late, "precondition_failed", 2)
    assert "secret" not in str(events(engine))


def test_a_post_that_goes_out_or_fails_is_told_of(engine: Engine, fake_services: FakeServices) -> None:
    fake_services.replies = [Reply("done", {"platformPostId": "tt_1"}), Reply("refused", message="suspended")]
    with engine.begin() as tx:
        first, second = (factories.post(tx, scheduled_time=factories.soon(-5)) for _ in range(2))
        slides = factories.slides(tx)
    assert publish_now((first, 1))[1].webhooks == [first]
    publish_now((second, 1))
    fake_services.replies = [Reply("refused", message="no image")]
    render_now(slides)
    posted, failed, unrendered = events(engine)
    stored = factories.row(engine, "posts", first)
    assert (posted.type, posted.data) == (
        "post.posted",
        {
            "workspaceId": factories.WORKSPACE,
            "postId": first,
            "revision": stored.revision,
            "scheduledTime": stored.scheduled_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "postedAt": stored.posted_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "platformPostId": "tt_1",
        },
    )
    assert (failed.type, failed.post_id, failed.data["reason"]) == ("post.failed", second, "suspended")
    assert (unrendered.type, unrendered.post_id, unrendered.data["reason"]) == ("post.failed", slides, "no image")
    for event in (failed, unrendered):
        assert event.data["revision"] == factories.row(engine, "posts", event.post_id).revision == 2


def test_without_a_url_nothing_is_written_down(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDRAFT_WEBHOOK_URL")
    settings.cache_clear()
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-5))
        factories.edit(tx, post, {"caption": "second"})
    publish_now((post, 1))
    assert events(engine) == []
    assert rescue.rescue() == {}


def test_an_event_stands_or_falls_with_what_it_tells_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        edit = factories.edit(tx, post, {"caption": "second"})
    tell = webhooks_store.record

    def telling_and_failing(*given: Any) -> Any:
        tell(*given)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(webhooks_store, "record", telling_and_failing)
        with pytest.raises(ZeroDivisionError):
            apply.apply_edits([post])
    assert (events(engine), factories.row(engine, "edits", edit).status) == ([], "queued")
