"""Webhooks: delivered in order and at least once for each post."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.domain.service_answers import Reply
from shared.store import webhook_log
from shared.store import webhooks as webhooks_store
from shared.store.webhook_log import EventStatus
from tests.worker.fake_services import BROKEN, Asked, FakeServices, change, fake_services, in_thread
from tests.worker.receiver import deliver, engine, events, sent, told
from worker import rescue, webhooks

__all__ = ["engine", "fake_services"]


class FrozenClock:
    """The clock of a process that was frozen for some seconds."""

    frozen_for = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.frozen_for


def test_a_delivery_carries_id_type_time_and_data(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1")
    assert deliver("post_1") == ({"delivered": 1}, [])
    (event,), (asked,) = events(engine), fake_services.asked
    assert (asked.kind, asked.key, asked.attempt) == ("webhook", event.id, 1)
    assert json.loads(asked.body) == {
        "id": event.id,
        "type": "edit.applied",
        "createdAt": event.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": {"postId": "post_1", "sequence": event.seq},
    }
    assert (event.status, event.finished_at is not None, event.lease_token) == ("delivered", True, None)


def test_each_posts_events_go_one_after_the_other_in_their_order(engine: Engine, fake_services: FakeServices) -> None:
    types = tuple(f"type.{number}" for number in range(5))
    told(engine, "post_1", "post_2", types=types)
    assert deliver("post_1", "post_2")[0] == {"delivered": 10}
    for post in ("post_1", "post_2"):
        assert [kind for kind, of in sent(fake_services) if of == post] == list(types)


def test_an_event_that_is_not_taken_holds_back_those_of_its_own_post_only(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1", "post_2", types=("type.1", "type.2"))
    fake_services.usual = lambda asked: BROKEN if '"post_1"' in asked.body else Reply("done")
    assert deliver("post_1", "post_2")[0] == {"queued": 1, "delivered": 2}
    assert [kind for kind, of in sent(fake_services) if of == "post_1"] == ["type.1"]
    first, second = events(engine, "post_1")
    assert (first.tries, first.message, second.tries) == (1, "503", 0)
    assert datetime.now(UTC) < first.lease_expires_at < datetime.now(UTC) + timedelta(seconds=3)
    # Not before its next try has come, whoever rings.
    assert deliver("post_1")[0] == {}


def test_the_next_try_repeats_id_and_body(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1", types=("type.1", "type.2"))
    fake_services.replies = [BROKEN]
    deliver("post_1")
    change(engine, "webhook_events", events(engine)[0].id, lease_expires_at="sql:now()")
    assert deliver("post_1")[0] == {"delivered": 2}
    first, second, _ = fake_services.asked
    assert (first.key, first.body) == (second.key, second.body)
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_receiver_that_names_a_time_is_asked_again_then(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1")
    fake_services.replies = [Reply("not_now", retry_after=100)]
    assert deliver("post_1")[0] == {"queued": 1}
    wait = events(engine)[0].lease_expires_at - datetime.now(UTC)
    assert timedelta(seconds=90) < wait < timedelta(seconds=115)


def test_a_receiver_that_wants_no_more_of_an_event_ends_it_and_the_next_one_goes(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1", types=("type.1", "type.2"))
    fake_services.replies = [Reply("refused", message="the service answered 410")]
    assert deliver("post_1")[0] == {"dead": 1, "delivered": 1}
    first, second = events(engine)
    assert (first.status, first.message, second.status) == ("dead", "the service answered 410", "delivered")


def test_two_workers_at_once_deliver_each_event_once_and_in_order(engine: Engine, fake_services: FakeServices) -> None:
    posts = [f"post_{number}" for number in range(10)]
    types = tuple(f"type.{number}" for number in range(4))
    told(engine, *posts, types=types)
    together = threading.Barrier(4)

    def work(_: int) -> None:
        together.wait(10)
        deliver(*posts)

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(work, range(4)))
    assert {event.status for event in events(engine)} == {"delivered"}
    for post in posts:
        assert [kind for kind, of in sent(fake_services) if of == post] == list(types)


def test_an_event_that_is_being_delivered_is_nobody_elses_and_no_lock_is_held(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1")

    def meanwhile(_: Asked) -> Reply:
        assert deliver("post_1")[0] == {}
        with engine.begin() as tx:
            tx.execute(text("SELECT 1 FROM webhook_events FOR UPDATE NOWAIT"))
        return Reply("done")

    fake_services.replies = [meanwhile]
    assert deliver("post_1")[0] == {"delivered": 1}
    assert len(fake_services.asked) == 1


def test_a_delivery_whose_lease_was_lost_changes_nothing(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1")
    event = events(engine)[0].id

    def lost(_: Asked) -> Reply:
        change(engine, "webhook_events", event, lease_token="another", tries=2)
        return Reply("done")

    fake_services.replies = [lost]
    assert deliver("post_1")[0] == {}
    assert (events(engine)[0].status, events(engine)[0].lease_token) == ("queued", "another")


def test_a_worker_that_froze_between_its_lease_and_its_call_does_not_send(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(engine, "post_1", types=("type.1", "type.2"))
    lease, clock = webhooks_store.lease, FrozenClock()

    def freezing(tx: Any, *given: Any) -> Any:
        """The first to lease freezes there; meanwhile its lease runs out, and another worker delivers all there is."""
        monkeypatch.setattr(webhooks_store, "lease", lease)
        leased = lease(tx, *given)
        tx.commit()
        change(engine, "webhook_events", leased[0].id, lease_expires_at="sql:clock_timestamp()")
        assert deliver("post_1")[0] == {"delivered": 2}
        clock.frozen_for = 61.0
        return leased

    monkeypatch.setattr(webhooks, "time", clock)
    monkeypatch.setattr(webhooks_store, "lease", freezing)
    assert deliver("post_1")[0] == {}
    assert [kind for kind, _ in sent(fake_services)] == ["type.1", "type.2"]
    assert {event.status for event in events(engine)} == {"delivered"}


def test_a_lease_that_became_too_old_and_is_ours_still_is_let_go_and_delivered_later(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(engine, "post_1")
    lease, clock = webhooks_store.lease, FrozenClock()

    def freezing(*given: Any) -> Any:
        leased = lease(*given)
        clock.frozen_for = 31.0
        return leased

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "time", clock)
        patch.setattr(webhooks_store, "lease", freezing)
        assert deliver("post_1")[0] == {"queued": 1}
    (event,) = events(engine)
    assert (fake_services.asked, event.message) == ([], "its lease had become too old to begin")
    change(engine, "webhook_events", event.id, lease_expires_at="sql:clock_timestamp()")
    assert deliver("post_1")[0] == {"delivered": 1}


def test_the_sequence_rises_for_each_post_and_a_repeat_has_its_own_again(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1", "post_2", types=("type.1", "type.2", "type.3"))
    fake_services.replies = [BROKEN]
    deliver("post_1", "post_2")
    change(engine, "webhook_events", events(engine, "post_1")[0].id, lease_expires_at="sql:clock_timestamp()")
    deliver("post_1", "post_2")
    said = [json.loads(asked.body)["data"] for asked in fake_services.asked]
    for post in ("post_1", "post_2"):
        numbers = [one["sequence"] for one in said if one["postId"] == post]
        assert numbers == sorted(numbers)
        assert list(dict.fromkeys(numbers)) == [event.seq for event in events(engine, post)]


def test_an_event_that_nobody_took_for_a_day_is_dead_and_the_next_one_goes(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1", types=("type.1", "type.2"))
    first = events(engine)[0].id
    fake_services.replies = [BROKEN, BROKEN]
    change(engine, "webhook_events", first, created_at="sql:now() - interval '23 hours 59 minutes'")
    assert deliver("post_1")[0] == {"queued": 1}
    change(engine, "webhook_events", first, created_at="sql:now() - interval '24 hours'", lease_expires_at="sql:now()")
    assert deliver("post_1")[0] == {"dead": 1, "delivered": 1}
    assert [kind for kind, _ in sent(fake_services)] == ["type.1", "type.1", "type.2"]
    with engine.connect() as tx:
        (dead,) = webhook_log.events(tx, EventStatus.DEAD)
    assert dead.last is not None
    assert (dead.id, dead.last.message, dead.tries) == (first, "503", 2)


def test_a_task_does_not_stay_for_ever_with_a_long_story(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(engine, "post_1", types=("type.1", "type.2", "type.3"))
    monkeypatch.setattr(webhooks, "SHIFT", 0.3)
    fake_services.usual = lambda _: (threading.Event().wait(0.2), Reply("done"))[1]
    counts, rung = deliver("post_1")
    assert (counts["delivered"] < 3, rung) == (True, ["post_1"])


def test_rescue_rings_for_events_that_were_forgotten(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(queue, "ring_webhooks", rung.extend)
    told(engine, "post_lost", "post_held", "post_free", types=("type.1", "type.2"))
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET created_at = now() + interval '1 minute'"))
    assert rescue.rescue() == {}
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET created_at = now() - interval '2 seconds'"))
        webhooks_store.lease(tx, ["post_held", "post_free"], 60)
    change(engine, "webhook_events", events(engine, "post_free")[0].id, lease_expires_at="sql:now()")
    assert rescue.rescue() == {"webhooks": 2}
    assert rung == ["post_lost", "post_free"]


def test_what_was_delivered_a_week_ago_is_dropped_and_the_dead_stay(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1", types=("type.1", "type.2", "type.3"))
    deliver("post_1")
    old, dead, _ = (event.id for event in events(engine))
    change(engine, "webhook_events", old, finished_at="sql:now() - interval '8 days'")
    change(engine, "webhook_events", dead, finished_at="sql:now() - interval '8 days'", status="dead")
    rescue.rescue()
    assert [event.status for event in events(engine)] == ["dead", "delivered"]


def test_delivery_outlasts_a_database_that_goes_away(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = webhooks_store.finish
    lost: list[int] = []

    def cut(tx: Any, deliveries: Any) -> Any:
        if not lost:
            lost.append(1)
            tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return finish(tx, deliveries)

    monkeypatch.setattr(webhooks_store, "finish", cut)
    told(engine, "post_1")
    with in_thread(lambda: deliver("post_1")):
        pass
    assert (len(fake_services.asked), events(engine)[0].status) == (1, "delivered")


def test_a_task_logs_one_line_for_all_events_that_were_not_taken(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red before: a receiver that was away had a line for each event and each try."""
    lines: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def warning(self, event: str, **given: Any) -> None:
            lines.append((event, given))

    monkeypatch.setattr(webhooks, "log", Log())
    told(engine, *(f"post_{number}" for number in range(9)))
    fake_services.usual = lambda asked: Reply("done") if '"post_0"' in asked.body else BROKEN
    deliver(*(f"post_{number}" for number in range(9)))
    [(event, said)] = lines
    assert event == "webhooks_not_taken"
    assert said.pop("event_id") in {event.id for event in events(engine)}
    assert said == {"events": 8, "delivered": 1, "dead": 0, "reasons": ["8 503"]}
    deliver("post_0")
    assert len(lines) == 1


@pytest.mark.parametrize(("hours", "least"), [(0, 1), (1, 60), (20, 900)])
def test_a_receiver_that_asks_again_and_again_for_no_wait_is_asked_ever_less_often(
    engine: Engine, fake_services: FakeServices, hours: int, least: int
) -> None:
    """Red before: `Retry-After: 0` for a day made 86,400 calls, more than `tries` can count."""
    told(engine, "post_1")
    (event,) = events(engine)
    change(engine, "webhook_events", event.id, created_at=f"sql:now() - interval '{hours} hours'")
    fake_services.replies = [Reply("not_now", retry_after=0)]
    before = datetime.now(UTC)
    deliver("post_1")
    wait = events(engine)[0].lease_expires_at - before
    assert timedelta(seconds=least - 0.5) <= wait <= timedelta(seconds=least * 1.1 + 5)


def test_more_tries_than_can_be_counted_end_no_batch(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1", "post_2")
    first, _ = events(engine)
    change(engine, "webhook_events", first.id, tries=32_767)
    for _ in range(2):
        fake_services.replies = [BROKEN]
        deliver("post_1")
        change(engine, "webhook_events", first.id, lease_expires_at="sql:now()")
    assert deliver("post_1", "post_2")[0] == {"delivered": 2}


def test_old_events_go_page_by_page(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_store, "FORGOTTEN_A_PAGE", 2)
    told(engine, *(f"post_{number}" for number in range(5)))
    deliver(*(f"post_{number}" for number in range(5)))
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET finished_at = now() - interval '8 days'"))
    assert rescue.rescue() == {"events": 5}
    assert events(engine) == []
