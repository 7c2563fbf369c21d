"""What `redraft doctor` finds about publisher, renderer and receiver, each with the words of the service."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from shared.cli import service_findings
from shared.cli.facts import DatabaseFacts, Facts, Webhooks
from shared.cli.findings import diagnose
from shared.domain.service_answers import Outcome
from tests import factories
from tests.shared.cli.database_findings import engine, found, run

__all__ = ["engine"]


@pytest.mark.parametrize(("failure", "service"), [("misconfigured", "publisher"), ("render_misconfigured", "renderer")])
def test_posts_that_failed_because_a_service_is_set_up_wrongly_are_found_with_its_words(
    engine: Engine, failure: str, service: str
) -> None:
    """Red before: once its posts had failed, a service that was set up wrongly was seen no more."""
    with engine.begin() as tx:
        for words, minutes in (("the service answered 404", 9), ("the service answered 401", 5), ("old", 60 * 30)):
            factories.post(
                tx,
                status="failed",
                failure_reason=f"{service}_unavailable",
                failure_class=failure,
                failure_message=words,
                failed_at=factories.soon(-minutes),
                scheduled_time=factories.soon(-60),
            )
    findings = found(engine)
    assert set(findings) == {f"failed_{service}_set_up_wrongly", "failed_posts"}
    finding = findings[f"failed_{service}_set_up_wrongly"]
    assert finding.what == (
        f"2 posts failed within a day because the {service} is set up wrongly; last words: the service answered 401"
    )
    assert f"REDRAFT_{service.upper()}_URL" in finding.todo
    assert finding.todo.endswith(f"`redraft posts retry --reason {failure}`.")


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (
            "misconfigured",
            "renderer_set_up_wrongly",
            'The renderer answers "it said so" to 1 post. It will answer every post like that',
        ),
        ("server_error", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("never_started", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("unknown", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("not_now", "renderer_busy", None),
        ("processing", "renderer_busy", None),
    ],
)
@pytest.mark.parametrize("claimed", [False, True], ids=["between two tries", "being rendered again"])
def test_a_renderer_that_renders_nothing_is_found(
    engine: Engine, outcome: str, code: str, words: str | None, *, claimed: bool
) -> None:
    claim = {"claim_kind": "render", "claim_token": "t", "claim_expires_at": factories.soon(1)}
    with engine.begin() as tx:
        factories.slides(
            tx,
            render_outcome=outcome,
            render_message="it said so",
            render_answered_at=factories.soon(-1),
            render_waits_since=factories.soon(-20),
            **claim if claimed else {"retry_at": factories.soon(1)},
        )
        factories.slides(tx)
    [(found_code, finding)] = found(engine).items()
    assert found_code == code
    if words is not None:
        assert finding.what == words
    else:
        assert "for 20 min" in finding.what or "for 21 min" in finding.what


def test_a_renderer_that_makes_a_post_wait_for_some_minutes_is_no_finding(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.slides(tx, render_outcome="processing", render_waits_since=factories.soon(-5))
    assert found(engine) == {}


def answered(engine: Engine, outcome: str, message: str | None) -> None:
    """A post between two tries, with the publisher's last answer."""
    with engine.begin() as tx:
        claimed = factories.post(tx, claim_kind="publish", claim_token="t", claim_expires_at=factories.soon(9))
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, finished_at, outcome, message)
                    VALUES (:id, 1, 'pub_1', '{}', 1, :token, now(), :outcome, :message)"""),
            {"id": claimed, "token": f"t_{claimed}", "outcome": outcome, "message": message},
        )


def test_different_failures_of_a_publisher_are_counted_each_under_its_own_words(engine: Engine) -> None:
    """Red before: all were counted under the words of the latest."""
    for outcome, message, times in (
        ("server_error", "Down for maintenance", 2),
        ("server_error", "a page, not JSON", 3),
        ("unknown", None, 1),
        *(("never_started", f"refused by host {number}", 1) for number in range(4)),
    ):
        for _ in range(times):
            answered(engine, outcome, message)
    what = found(engine)["publisher_failing"].what
    assert what.startswith(
        "The latest try of the publisher failed for 10 posts: 3 a page, not JSON; 2 Down for maintenance; 1 refused by"
    )
    assert what.endswith("; 2 with other words")


def test_a_publisher_that_answers_every_post_alike_is_found(engine: Engine) -> None:
    answered(engine, "misconfigured", "the service answered 401")
    finding = found(engine).pop("publisher_set_up_wrongly")
    assert "answers 401 to 1 post. It will answer every post like that" in finding.what
    assert "REDRAFT_PUBLISHER_URL" in finding.todo


@pytest.mark.parametrize(
    ("webhooks", "code", "what"),
    [
        (Webhooks(), None, None),
        (Webhooks(3, timedelta(minutes=1)), None, None),
        (Webhooks(3, timedelta(minutes=1), outcome=Outcome.DONE, words="taken (200)", since=timedelta(0)), None, None),
        (
            Webhooks(3, timedelta(minutes=11)),
            "webhooks_behind",
            "3 webhook events wait, the oldest for 11 min; the receiver was not asked yet",
        ),
        (
            Webhooks(1, timedelta(hours=2), 0, Outcome.UNKNOWN, "timed out", timedelta(seconds=40)),
            "webhooks_behind",
            "1 webhook event waits, the oldest for 2 h; the receiver's last answer, 40 s ago: timed out",
        ),
        (
            Webhooks(1, timedelta(seconds=20), 0, Outcome.SERVER_ERROR, "503: away", timedelta(seconds=12)),
            "receiver_failing",
            "1 webhook event waits, the oldest for 20 s; the receiver's last answer, 12 s ago: 503: away",
        ),
        (
            Webhooks(1, timedelta(seconds=20), 0, Outcome.MISCONFIGURED, "401: no", timedelta(0)),
            "receiver_set_up_wrongly",
            "1 webhook event waits, the oldest for 20 s; the receiver's last answer, 0 ms ago: 401: no",
        ),
        (Webhooks(0, None, 0, Outcome.SERVER_ERROR, "500", timedelta(hours=9)), None, None),
        (
            Webhooks(0, None, 2),
            "dead_webhooks",
            "2 webhook events are dead: the receiver answered 410, or did not take them for 24 hours",
        ),
    ],
)  # fmt: skip
def test_a_receiver_that_does_not_take_events_is_found(webhooks: Webhooks, code: str | None, what: str | None) -> None:
    """Red before: neither a backlog nor the receiver's answers were looked at."""
    findings = diagnose(Facts(DatabaseFacts(0, 0.1, webhooks=webhooks), None, None))
    assert [(one.code, one.what) for one in findings] == ([(code, what)] if code else [])


def test_a_backlog_of_webhooks_is_read_from_the_rows(engine: Engine) -> None:
    run(
        engine,
        """INSERT INTO webhook_events (id, workspace_id, post_id, type, data, created_at)
           VALUES ('evt_1', 'ws_test', 'post_1', 'edit.applied', '{}', now() - interval '11 min'),
                  ('evt_2', 'ws_test', 'post_1', 'edit.applied', '{}', now())""",
    )
    run(
        engine,
        """INSERT INTO webhook_tries (event_seq, number, workspace_id, outcome, status, message)
           SELECT seq, 1, 'ws_test', 'server_error', 500, 'out of order' FROM webhook_events WHERE id = 'evt_1'""",
    )
    finding = found(engine)["webhooks_behind"]
    assert re.match(
        r"2 webhook events wait, the oldest for 11 min( \d+ s)?; the receiver's last answer, ", finding.what
    )
    assert finding.what.endswith("500: out of order")


def test_a_slow_receiver_is_found_while_events_wait() -> None:
    slow = Webhooks(
        3, timedelta(seconds=20), 0, Outcome.DONE, "taken (200) after 4.0 s", timedelta(), timedelta(seconds=4)
    )
    [finding] = service_findings.webhooks(slow)
    assert finding.code == "receiver_slow"
    assert finding.what == "The receiver of webhooks is slow: a call takes 4.0 s, and 3 events wait"
    assert list(service_findings.webhooks(replace(slow, took=timedelta(seconds=0.9)))) == []
    assert list(service_findings.webhooks(replace(slow, queued=0, oldest=None))) == []
