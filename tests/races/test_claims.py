"""Claims and finishes against edits and against each other: two real connections, and proof that the loser waited."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from shared.domain.service_answers import Reply
from shared.store import batches
from shared.store import claims as claims_store
from tests import factories
from tests.worker.fake_services import (
    MADE,
    FakeServices,
    attempts,
    expire,
    fake_services,
    in_thread,
    publish_now,
    render_now,
    until,
)
from worker import apply, publish, render
from worker.follow_ups import SNOOZE, FollowUps, Publish
from worker.outbound.call_pool import CallPool, Completed
from worker.published import Called, Published, finish
from worker.render import Rendering

__all__ = ["fake_services"]

CONTENT = {"contentType": "slides", "contentUrl": ["https://cdn.example.com/8.jpg", "https://cdn.example.com/9.jpg"]}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    # An edit's patience with a held row is 50 ms; here the one who holds it must be seen to be waited for.
    monkeypatch.setattr(apply, "WAIT_FOR_LOCKS", 1.9)


@pytest.fixture
def slides(engine: Engine, fake_services: FakeServices) -> str:
    fake_services.usual = MADE
    with engine.begin() as tx:
        return factories.slides(tx)


class Pause:
    """Stops whoever calls a statement that writes something, its locks held, until `go`; only the first of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, lists: int = 1) -> None:
        """`lists`: how many of its arguments behind the transaction say what is written."""
        self.reached, self.go = threading.Event(), threading.Event()
        run = getattr(place, name)

        def paused(*given: Any, **named: Any) -> Any:
            if any(given[1 : 1 + lists]) and not self.reached.is_set():
                self.reached.set()
                assert self.go.wait(10)
            return run(*given, **named)

        monkeypatch.setattr(place, name, paused)


def someone_waits_for_a_lock(engine: Engine, table: str = "posts") -> bool:
    with engine.connect() as look:
        waiting = look.execute(
            text("""SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND wait_event_type = 'Lock' AND query ILIKE :table"""),
            {"table": f"%{table}%"},
        )
        return bool(waiting.scalar_one())


def queued(engine: Engine, post: str, changes: dict[str, Any]) -> str:
    with engine.begin() as tx:
        return factories.edit(tx, post, changes)


def test_an_edit_that_loses_the_race_to_a_publish_claim_is_rejected(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, claims_store, "take_claims")
    with in_thread(lambda: publish_now((due, 1))):
        assert pause.reached.wait(10)
        edit = queued(engine, due, {"caption": "too late"})
        with in_thread(lambda: apply.apply_edits([due])):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
    ended = factories.row(engine, "edits", edit)
    assert (ended.status, ended.error_code) == ("rejected", "cannot_edit")
    assert ended.error_details[0]["message"] in {"being published", "posted"}
    assert fake_services.asked[0].post["caption"] == "first"


def test_a_publish_that_loses_the_race_to_an_edit_comes_back_and_takes_the_edit_with_it(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, batches, "finalize", lists=2)
    edit = queued(engine, due, {"caption": "in time"})
    with in_thread(lambda: apply.apply_edits([due])):
        assert pause.reached.wait(10)
        done = Published()
        assert publish.claim({due: 1}, done) == []
        assert (done.outcomes, done.follow_ups.snoozes) == ({due: "contended"}, [(SNOOZE, Publish(due, 1))])
        pause.go.set()
    assert factories.row(engine, "edits", edit).status == "applied"
    assert publish_now((due, 1))[0] == {due: "done"}
    assert fake_services.asked[0].post["caption"] == "in time"


def test_an_edit_that_loses_the_race_to_a_finish_is_rejected_as_posted(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = publish.claim({due: 1}, Published())
    pause = Pause(monkeypatch, claims_store, "finish_publishes")
    completed = [Completed(claimed[0], Reply("done", {}), 0.0)]
    with in_thread(lambda: finish(completed, Published())):
        assert pause.reached.wait(10)
        edit = queued(engine, due, {"caption": "too late"})
        with in_thread(lambda: apply.apply_edits([due])):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
    ended = factories.row(engine, "edits", edit)
    assert (ended.status, ended.error_details[0]["message"]) == ("rejected", "posted")
    assert fake_services.asked == []


def test_a_finish_that_meets_an_edit_under_way_lands_after_it(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[Pause] = []

    def edited(_: Any) -> Reply:
        pauses.append(Pause(monkeypatch, batches, "finalize", lists=2))
        edits.append(queued(engine, due, {"caption": "too late"}))
        applying.submit(apply.apply_edits, [due])
        assert pauses[0].reached.wait(10)
        return Reply("done", {})

    edits: list[str] = []
    fake_services.usual = edited
    with ThreadPoolExecutor(1) as applying, in_thread(lambda: publish_now((due, 1))) as publishing:
        until(lambda: bool(pauses) and pauses[0].reached.is_set())
        publishing.join(0.2)
        assert publishing.is_alive()
        assert factories.row(engine, "posts", due).status == "generated"
        pauses[0].go.set()
    assert factories.row(engine, "posts", due).status == "posted"
    assert factories.row(engine, "edits", edits[0]).error_details[0]["message"] == "being published"


def test_a_content_edit_that_waits_for_a_render_claim_drops_it_and_the_result_never_lands(
    engine: Engine, fake_services: FakeServices, slides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause(monkeypatch, claims_store, "take_claims")
    edited = threading.Event()

    def late(_: Any) -> Reply:
        assert edited.wait(10)
        return MADE

    fake_services.replies = [late]
    outcomes: list[str] = []
    with in_thread(lambda: outcomes.append(render_now(slides)[0])):
        assert pause.reached.wait(10)
        edit = queued(engine, slides, CONTENT)
        with in_thread(lambda: apply.apply_edits([slides])):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
        edited.set()
    stored = factories.row(engine, "posts", slides)
    assert (outcomes, factories.row(engine, "edits", edit).status) == (["stale"], "applied")
    assert (stored.status, stored.claim_kind, stored.rendered_url) == ("pending_render", None, None)


def test_a_finished_render_that_waits_for_a_content_edit_does_not_land(
    engine: Engine, slides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = render._claim(slides, 1, Rendering())
    assert job is not None
    pause = Pause(monkeypatch, batches, "finalize", lists=2)
    queued(engine, slides, CONTENT)
    finished: list[Rendering] = []
    with in_thread(lambda: apply.apply_edits([slides])):
        assert pause.reached.wait(10)
        with in_thread(lambda: finished.append(render._finish(job, MADE))):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
    assert finished[0].outcome == "stale"
    stored = factories.row(engine, "posts", slides)
    assert (stored.status, stored.content_revision, stored.rendered_url) == ("pending_render", 2, None)


def test_a_failed_render_that_waits_for_a_content_edit_does_not_fail_the_post(
    engine: Engine, slides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = render._claim(slides, 1, Rendering())
    assert job is not None
    pause = Pause(monkeypatch, batches, "finalize", lists=2)
    queued(engine, slides, CONTENT)
    with in_thread(lambda: apply.apply_edits([slides])):
        assert pause.reached.wait(10)
        with in_thread(lambda: render._finish(job, Reply("refused", message="no image"))):
            until(lambda: someone_waits_for_a_lock(engine))
            pause.go.set()
    assert factories.row(engine, "posts", slides).status == "pending_render"


def test_a_2xx_that_comes_while_a_person_holds_the_post_past_its_claim_is_kept_and_ends_the_post_without_a_call(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    (called,) = publish.claim({due: 1}, Published())
    answered = Completed(called, Reply("done", {"platformPostId": "tt_1"}), time.monotonic() - 61)
    with engine.connect() as person, capture_logs() as logs:
        person.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": due})
        # It waits for nothing: the person holds the post all the while.
        assert finish([answered], Published()) == []
        with pytest.raises(OperationalError, match="could not obtain lock"), engine.connect() as other:
            other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE NOWAIT"), {"id": due})
        (row,) = attempts(engine, due)
        assert (row.outcome, row.platform_post_id) == ("done", "tt_1")
        contended = Published()
        assert publish.claim({due: 1}, contended) == []
        assert contended.outcomes == {due: "contended"}
    assert [line["event"] for line in logs if line["event"] in {"post_locked_elsewhere", "finish_given_up"}] == [
        "post_locked_elsewhere",
        "finish_given_up",
    ]
    assert factories.row(engine, "posts", due).status == "generated"
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "done"}
    stored = factories.row(engine, "posts", due)
    assert (stored.status, stored.platform_post_id) == ("posted", "tt_1")
    assert fake_services.asked == []
    assert len(attempts(engine, due)) == 1


def test_a_2xx_that_waits_for_the_claim_that_writes_its_try_off_is_recorded_after_it(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = publish.claim({due: 1}, Published())
    expire(engine, due)
    answered = Completed(first, Reply("done", {"platformPostId": "tt_1"}), time.monotonic())
    pause = Pause(monkeypatch, claims_store, "take_claims")
    second: list[Called] = []
    kept: list[Completed[Called]] = []
    with in_thread(lambda: second.extend(publish.claim({due: 1}, Published()))):
        assert pause.reached.wait(10)
        with in_thread(lambda: kept.extend(finish([answered], Published()))):
            until(lambda: someone_waits_for_a_lock(engine, "publish_attempts"))
            pause.go.set()
    assert kept == [answered]
    assert [(row.outcome, row.platform_post_id) for row in attempts(engine, due)] == [("done", "tt_1"), (None, None)]
    refused = Completed(second[0], Reply("refused", message="no"), time.monotonic())
    assert finish([refused], Published()) == []
    assert factories.row(engine, "posts", due).platform_post_id == "tt_1"


@pytest.mark.parametrize("expired", [False, True], ids=["a due post", "an expired claim"])
def test_of_many_workers_on_one_post_one_claims_and_one_calls(
    engine: Engine, fake_services: FakeServices, due: str, monkeypatch: pytest.MonkeyPatch, *, expired: bool
) -> None:
    if expired:
        publish.claim({due: 1}, Published())
        expire(engine, due)
    pause = Pause(monkeypatch, claims_store, "take_claims")
    calls = CallPool(8)
    with ThreadPoolExecutor(8) as workers:
        running = [workers.submit(publish.publish, [(due, 1)], calls, FollowUps().add) for _ in range(8)]
        assert pause.reached.wait(10)
        # All the others meet the winner's lock while it stands between its look and its commit.
        until(lambda: sum(one.done() for one in running) == 7)
        pause.go.set()
        outcomes = sorted(one.result().outcomes[due] for one in running)
    assert outcomes == ["contended"] * 7 + ["done"]
    assert len(fake_services.asked) == 1
    assert [row.outcome for row in attempts(engine, due)] == (["unknown"] if expired else []) + ["done"]
