"""Webhook events as operators read them, and sending them again: guarded, in steps, and harmless if done twice."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, text

from shared.domain.service_answers import Outcome, Reply
from shared.store import acts, webhook_backlogs, webhook_log, webhook_resends
from shared.store import webhooks as webhooks_store
from shared.store.acts import Actor
from shared.store.db import transaction
from shared.store.webhook_log import Answer, EventStatus
from shared.store.webhook_resends import Choice
from tests import factories
from tests.worker.fake_services import BROKEN, FakeServices, change, fake_services
from tests.worker.receiver import deliver, engine, events, sent, told

__all__ = ["engine", "fake_services"]
KIM = Actor("kim")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOT_TAKEN = Reply("server_error", message="the service answered 500", status=500)


def clock(engine: Engine) -> datetime:
    with engine.connect() as tx:
        now: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def resend(engine: Engine, *event_ids: str, until: datetime | None = None) -> tuple[str, ...]:
    moment = until or clock(engine)
    with transaction() as tx:
        return webhook_resends.resend(tx, event_ids, moment, KIM).event_ids


def resend_all(choice: Choice) -> list[str]:
    done: list[str] = []
    after = None
    while True:
        with transaction() as tx:
            step = webhook_resends.resend_step(tx, choice, KIM, after)
        done += step.event_ids
        after = step.after
        if after is None:
            return done


def dead(engine: Engine, *posts: str) -> list[str]:
    told(engine, *posts)
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET status = 'dead', finished_at = clock_timestamp(), message = '500'"))
    return [event.id for event in events(engine)]


def test_each_try_is_kept_with_its_time_its_status_and_its_words(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1")
    fake_services.replies = [NOT_TAKEN, Reply("done", status=204, took=4.2)]
    deliver("post_1")
    change(engine, "webhook_events", events(engine)[0].id, lease_expires_at="sql:now()")
    deliver("post_1")
    with engine.connect() as tx:
        found = webhook_log.event_log(tx, events(engine)[0].id)
    assert found is not None
    said = [(number, one.outcome, one.status, one.message, one.words) for number, one in found.tries]
    assert said == [
        (2, Outcome.DONE, 204, None, "taken (204) after 4.2 s"),
        (1, Outcome.SERVER_ERROR, 500, "the service answered 500", "the service answered 500"),
    ]
    assert [one.took for _, one in found.tries] == [timedelta(seconds=4.2), None]
    assert found.tries[0][1].at > found.tries[1][1].at
    assert (found.event.status, found.event.tries, found.event.last) == (EventStatus.DELIVERED, 2, found.tries[0][1])


def test_tries_go_with_their_event(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1", "post_2")
    deliver("post_1", "post_2")
    with engine.begin() as tx:
        tx.execute(text("DELETE FROM webhook_events WHERE post_id = 'post_1'"))
        assert tx.execute(text("SELECT count(*) FROM webhook_tries")).scalar_one() == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(LONG_AGO, Outcome.UNKNOWN, None, "timed out"), "timed out"),
        (Answer(LONG_AGO, Outcome.UNKNOWN, None, None), "unknown"),
        (Answer(LONG_AGO, Outcome.SERVER_ERROR, 503, "Down for maintenance"), "503: Down for maintenance"),
        (Answer(LONG_AGO, Outcome.REFUSED, 410, "the service answered 410"), "the service answered 410"),
        (Answer(LONG_AGO, Outcome.DONE, 200, None), "taken (200)"),
        (Answer(LONG_AGO, Outcome.DONE, None, None), "taken"),
        (Answer(LONG_AGO, Outcome.DONE, 200, None, timedelta(milliseconds=999)), "taken (200)"),
        (Answer(LONG_AGO, Outcome.DONE, 200, None, timedelta(seconds=1)), "taken (200) after 1.0 s"),
        (Answer(LONG_AGO, Outcome.UNKNOWN, None, "timed out", timedelta(seconds=30)), "timed out after 30 s"),
    ],
)
def test_an_answer_is_said_once(answer: Answer, words: str) -> None:
    assert answer.words == words


def test_a_dead_event_that_is_sent_again_has_its_id_its_body_and_a_new_day(
    engine: Engine, fake_services: FakeServices
) -> None:
    told(engine, "post_1")
    (event,) = events(engine)
    fake_services.replies = [NOT_TAKEN, NOT_TAKEN]
    change(engine, "webhook_events", event.id, created_at="sql:now() - interval '3 days'")
    assert deliver("post_1")[0] == {"dead": 1}
    assert resend(engine, event.id) == (event.id,)
    # Its day begins anew: one more failure does not end it.
    assert deliver("post_1")[0] == {"queued": 1}
    change(engine, "webhook_events", event.id, lease_expires_at="sql:now()")
    assert deliver("post_1")[0] == {"delivered": 1}
    first, second, third = fake_services.asked
    assert first.body == second.body == third.body
    assert [(one.key, one.attempt) for one in fake_services.asked] == [(event.id, 1), (event.id, 2), (event.id, 3)]
    with engine.connect() as tx:
        (act,) = acts.of(tx, event.id, 9)
    assert act.words() == "sent again by kim; before: dead"
    assert act.before["lastAnswer"] == "the service answered 500"


def test_an_event_that_waits_or_is_gone_is_left_alone(engine: Engine) -> None:
    told(engine, "post_1")
    (event,) = events(engine)
    assert resend(engine, event.id, "evt_gone") == ()
    assert events(engine) == [event]


def test_what_ended_after_the_operator_looked_is_left_alone(engine: Engine, fake_services: FakeServices) -> None:
    """A twin's press: the first has sent the event again, and it is delivered by now."""
    (event_id,) = dead(engine, "post_1")
    looked = clock(engine)
    assert resend(engine, event_id, until=looked) == (event_id,)
    assert deliver("post_1")[0] == {"delivered": 1}
    assert resend(engine, event_id, until=looked) == ()
    assert resend_all(Choice(LONG_AGO, looked)) == []
    assert [kind for kind, _ in sent(fake_services)] == ["edit.applied"]


def test_two_that_send_all_again_at_the_same_moment_send_each_once(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_resends, "LOOKED_AT", 7)
    posts = [f"post_{number}" for number in range(40)]
    ids = dead(engine, *posts)
    choice, together = Choice(LONG_AGO, clock(engine)), threading.Barrier(3)

    def work(_: int) -> list[str]:
        together.wait(10)
        return resend_all(choice)

    with ThreadPoolExecutor(3) as workers:
        done = [event_id for some in workers.map(work, range(3)) for event_id in some]
    assert sorted(done) == sorted(ids)
    deliver(*posts)
    assert len(fake_services.asked) == len(posts)


def test_all_since_a_time_go_again_in_their_order_and_in_steps(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_resends, "LOOKED_AT", 2)
    monkeypatch.setattr(webhook_resends, "TOGETHER", 1)
    types = tuple(f"type.{number}" for number in range(5))
    told(engine, "post_1", types=types)
    deliver("post_1")
    old, *_ = (event.id for event in events(engine))
    change(engine, "webhook_events", old, finished_at="sql:now() - interval '2 days'")
    told(engine, "post_2")
    choice = Choice(clock(engine) - timedelta(hours=1), clock(engine))
    with engine.connect() as tx:
        assert webhook_resends.count(tx, choice) == (4, 0)
    assert len(resend_all(choice)) == 4
    deliver("post_1")
    said = [json.loads(asked.body)["data"]["sequence"] for asked in fake_services.asked[len(types) :]]
    assert said == [event.seq for event in events(engine, "post_1")][1:]
    assert [event.status for event in events(engine, "post_2")] == ["queued"]


def test_a_resend_of_one_workspace_or_of_one_status_leaves_the_others_alone(engine: Engine) -> None:
    ids = dead(engine, "post_1", "post_2", "post_3")
    change(engine, "webhook_events", ids[0], workspace_id="ws_other")
    change(engine, "webhook_events", ids[1], status="delivered")
    now = clock(engine)
    assert resend_all(Choice(LONG_AGO, now, workspace_id="ws_other")) == [ids[0]]
    assert resend_all(Choice(LONG_AGO, now, EventStatus.DELIVERED)) == [ids[1]]
    assert resend_all(Choice(now, now)) == []
    assert resend_all(Choice(LONG_AGO, now)) == [ids[2]]


@pytest.mark.parametrize(("seconds", "again"), [(5, False), (55, False), (65, True)])
def test_what_was_sent_again_within_a_minute_is_not_among_all_since_a_time(
    engine: Engine, *, seconds: int, again: bool
) -> None:
    """A second command that starts a moment later, when the first one's events have been delivered already."""
    (event_id,) = dead(engine, "post_1")
    change(engine, "webhook_events", event_id, resent_at=f"sql:now() - interval '{seconds} seconds'")
    choice = Choice(LONG_AGO, clock(engine))
    with engine.connect() as tx:
        assert webhook_resends.count(tx, choice) == (0, int(again))
    assert resend_all(choice) == ([event_id] if again else [])
    # Named by itself it is meant.
    assert resend(engine, event_id) == (() if again else (event_id,))


def test_backlogs_say_what_waits_since_when_what_is_dead_and_the_last_answer(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        factories.workspace(tx, "ws_quiet", "_quiet", "sk_quiet")
    told(engine, "post_1", types=("type.1", "type.2"))
    told(engine, "post_2")
    fake_services.replies = [BROKEN]
    deliver("post_2")
    first, second, last = events(engine)
    change(engine, "webhook_events", first.id, created_at="sql:now() - interval '1 hour'")
    change(engine, "webhook_events", second.id, status="dead", finished_at="sql:now()")
    with engine.connect() as tx:
        [one] = webhook_backlogs.backlogs(tx)
        whole = webhook_backlogs.overall(tx)
    assert (one.workspace_id, one.queued, one.dead) == (factories.WORKSPACE, 2, 1)
    assert one.last is not None
    assert (one.last.outcome, one.last.words) == (Outcome.SERVER_ERROR, "503")
    assert one.oldest is not None
    assert timedelta(minutes=59) < whole.now - one.oldest < timedelta(minutes=61)
    assert (whole.queued, whole.dead, whole.oldest, whole.last) == (2, 1, one.oldest, one.last)
    # One that an operator has queued again waits since then.
    change(engine, "webhook_events", first.id, resent_at="sql:now()")
    with engine.connect() as tx:
        assert webhook_backlogs.overall(tx).oldest == last.created_at


@pytest.mark.parametrize("status", list(EventStatus))
def test_lists_page_to_their_end(engine: Engine, fake_services: FakeServices, status: EventStatus) -> None:
    with engine.begin() as tx:
        factories.workspace(tx, "ws_b", "_b", "sk_b")
    told(engine, *(f"post_{number}" for number in range(7)))
    ids = [event.id for event in events(engine)]
    with engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET workspace_id = 'ws_b' WHERE seq % 2 = 0"))
        if status is not EventStatus.QUEUED:
            end = text("UPDATE webhook_events SET status = :status, finished_at = now()")
            tx.execute(end, {"status": status.value})
    if status is not EventStatus.QUEUED:
        ids.reverse()
    seen: list[str] = []
    after: str | None = None
    with engine.connect() as tx:
        while found := webhook_log.events(tx, status, after=after, limit=3):
            seen += [event.id for event in found]
            after = found[-1].place
        others: list[Any] = [one for one in EventStatus if one is not status]
        assert [webhook_log.events(tx, one) for one in others] == [[], []]
        of_b = webhook_log.events(tx, status, workspace_id="ws_b")
    assert seen == ids
    assert {event.workspace_id for event in of_b} == {"ws_b"}
    assert 0 < len(of_b) < 7


def test_nonsense_for_a_place_is_the_start(engine: Engine) -> None:
    told(engine, "post_1")
    with engine.connect() as tx:
        long = (f"x~{9**99}", f"2020-01-01~{'9' * 99}")
        for place in ("", "x", "2026-01-01T00:00:00+00:00~", *long, "2020-W01-1~5", "2020-01-01~-5"):
            assert len(webhook_log.events(tx, EventStatus.QUEUED, after=place)) == 1


def test_every_list_is_read_by_an_index(engine: Engine) -> None:
    """With many rows no statement sorts or walks a whole table."""
    with engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, finished_at)
                    SELECT 'evt_' || n, 'ws_' || n % 5, 'post_' || n, 't', '{}', s, CASE s WHEN 'queued' THEN NULL
                        ELSE now() - make_interval(secs => n) END
                    FROM generate_series(1, 30000) n,
                        LATERAL (SELECT (ARRAY['queued', 'dead', 'delivered'])[n % 3 + 1] AS s) k""")
        )
        tx.execute(text("ANALYZE webhook_events"))
        tx.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        for status, statement in webhook_log._LISTS.items():
            given = {"status": status.value, "workspace": None, "limit": 50, "at": "infinity", "seq": 0}
            plan = "\n".join(tx.execute(text(f"EXPLAIN {statement.text}"), given).scalars())
            assert "Seq Scan on webhook_events" not in plan, plan
            wanted = "ix_webhook_events_delivered" if status is EventStatus.DELIVERED else "ix_webhook_events_open"
            assert wanted in plan, plan

        def plan_of(statement: TextClause, **given: Any) -> str:
            plan = "\n".join(tx.execute(text(f"EXPLAIN {statement.text}"), given).scalars())
            assert "Seq Scan on webhook_events" not in plan, plan
            return plan

        # One that has few events, beside others that have many.
        given = {"status": "delivered", "workspace": "ws_rare", "limit": 50, "at": "infinity", "seq": 0}
        assert "ix_webhook_events_taken" in plan_of(webhook_log._DELIVERED_OF_ONE, **given)
        assert "ix_webhook_events_open" in plan_of(webhook_backlogs._WORKSPACES, limit=9)
        counts = plan_of(webhook_backlogs._COUNTS, ids=["ws_1"], many=100, typical=20)
        assert "ix_webhook_events_open" in counts
        plan_of(webhook_backlogs._TOTALS, many=100)
        now = datetime.now(UTC)
        given = Choice(now, now, EventStatus.DEAD).given() | {"after": 0, "looked_at": 100, "most": 10}
        assert "ix_webhook_events_dead" in plan_of(webhook_resends._STEP_OF_DEAD, **given)
        one = Choice(now, now, workspace_id="ws_rare").given()
        assert "ix_webhook_events_delivered" in plan_of(webhook_resends._FIRST, **one)
        assert "ix_webhook_events_taken" in plan_of(webhook_resends._FIRST_OF_ONE, **one)
        assert "ix_webhook_events_taken" in plan_of(webhook_resends._COUNT_OF_ONE, **one, many=100)
        forgotten = plan_of(webhooks_store._FORGOTTEN, age=1.0, limit=10, after="", looked_at=100)
        assert "ix_webhook_events_queue" in forgotten


def test_a_resend_of_more_than_it_looks_at_begins_where_none_is_missed(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that waited for days while no worker ran ends long after later ones were made."""
    monkeypatch.setattr(webhook_resends, "_FIRST", text(webhook_resends._FIRST.text.replace("100000", "2")))
    told(engine, *(f"post_{number}" for number in range(5)))
    deliver(*(f"post_{number}" for number in range(5)))
    ids = [event.id for event in events(engine)]
    change(engine, "webhook_events", ids[4], finished_at="sql:now() - interval '9 days'")
    choice = Choice(clock(engine) - timedelta(hours=1), clock(engine))
    assert resend_all(choice) == ids[:4]


def test_counts_of_many_workspaces_stop_early_and_say_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_backlogs, "COUNTED", 4)
    monkeypatch.setattr(webhook_backlogs, "COUNTED_AT_LEAST", 2)
    dead(engine, "post_1", "post_2", "post_3")
    with engine.begin() as tx:
        factories.workspace(tx, "ws_b", "_b", "sk_b")
        tx.execute(text("UPDATE webhook_events SET workspace_id = 'ws_b' WHERE post_id = 'post_3'"))
    with engine.connect() as tx:
        found = {one.workspace_id: one for one in webhook_backlogs.backlogs(tx)}
    assert {one.most for one in found.values()} == {2}
    assert [found[home].counted(found[home].dead) for home in (factories.WORKSPACE, "ws_b")] == ["2+", "1"]


def test_a_slow_receiver_is_named_by_its_latest_calls(engine: Engine, fake_services: FakeServices) -> None:
    told(engine, "post_1", types=("type.1", "type.2", "type.3"))
    fake_services.replies = [Reply("done", status=200, took=one) for one in (9.0, 2.0)] + [replace(NOT_TAKEN, took=3.0)]
    deliver("post_1")
    with engine.connect() as tx:
        [one] = webhook_backlogs.backlogs(tx)
        whole = webhook_backlogs.overall(tx)
    assert (one.typical, one.slow) == (timedelta(seconds=3), True)
    assert whole.typical == one.typical


def test_forgotten_events_are_looked_for_part_by_part(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_store, "FORGOTTEN_LOOKED_AT", 3)
    told(engine, "post_a", types=("type.1", "type.2", "type.3", "type.4"))
    told(engine, "post_b", "post_c", "post_d")
    change_all = text("UPDATE webhook_events SET created_at = now() - interval '1 minute'")
    with engine.begin() as tx:
        tx.execute(change_all)
    seen, place = [], ""
    with engine.connect() as tx:
        for _ in range(9):
            some, place = webhooks_store.forgotten(tx, 1.0, 10, place)
            seen += some
            if not place:
                break
        # As many as there is room for; the next look goes on behind them.
        assert webhooks_store.forgotten(tx, 1.0, 1, "post_a") == (["post_b"], "post_b")
    assert seen == ["post_a", "post_b", "post_c", "post_d"]
