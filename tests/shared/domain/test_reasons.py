"""Why a post has not gone out: every state of a row and its latest try, and what is said of it. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import reasons
from shared.domain.reasons import LastTry, Reason, Row
from shared.domain.service_answers import Outcome, Past

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON, GONE = NOW + timedelta(seconds=12), NOW - timedelta(seconds=3)
RETAKEN = {"claim": "publish", "claim_token": "clm_1"}


def row(**given: Any) -> Row:
    usual: dict[str, Any] = {"id": "post_1", "status": "generated", "scheduled_time": GONE, "enqueued_at": GONE}
    return Row(**usual | given)


def tried(outcome: str | None, message: str | None = None, **given: Any) -> LastTry:
    usual: dict[str, Any] = {"number": 3, "claim_token": "clm_1", "started_at": NOW - timedelta(seconds=9)}
    return LastTry(**usual | {"outcome": outcome, "message": message} | given)


def past(outcome: str, times: int = 3) -> Past:
    return Past.of([(Outcome(outcome), NOW)] * times)


def between_renders(outcome: str, message: str, **given: Any) -> Row:
    return row(status="pending_render", retry_at=SOON, render_outcome=outcome, render_message=message, **given)


WAITING = row(**RETAKEN, claim_expires_at=SOON)
EXPIRED = row(**RETAKEN, claim_expires_at=GONE)


@pytest.mark.parametrize(
    ("post", "last", "before", "code", "words"),
    [
        # Between two tries the publisher's own answer is said, however long ago the claim was taken.
        (
            WAITING,
            tried("server_error", "the service answered 503"),
            past("server_error"),
            "server_error",
            "the publisher failed (the service answered 503); 3 of 10 tries are used up; the next one comes in 12 s",
        ),
        (
            WAITING,
            tried("misconfigured", "the service answered 401: token expired"),
            past("misconfigured", 2),
            "misconfigured",
            (
                "the publisher is set up wrongly (the service answered 401: token expired); 2 of 10 tries are used up; "
                "the next one comes in 12 s"
            ),
        ),
        (
            WAITING,
            tried("unknown", "timed out"),
            past("unknown", 2),
            "unknown",
            (
                "it is not known whether its last try went out (timed out); 2 of 3 tries are used up; "
                "the next one comes in 12 s"
            ),
        ),
        (
            WAITING,
            tried("not_now", "slow down"),
            past("not_now"),
            "not_now",
            "the publisher asks to wait (slow down); that was try 3; the next one comes in 12 s",
        ),
        (
            WAITING,
            tried("processing", "the service is still at work"),
            past("processing"),
            "processing",
            "the publisher is still at work on it; that was try 3; the next one comes in 12 s",
        ),
        # The claim's time is over, which is when the next try is due: nobody died.
        (
            EXPIRED,
            tried("server_error", "503"),
            past("server_error"),
            "server_error",
            "the publisher failed (503); 3 of 10 tries are used up; the next one is due now",
        ),
        (EXPIRED, tried("unknown"), past("unknown"), "unknown", None),
        (
            row(retry_at=SOON),
            tried("never_started", "connection refused"),
            past("never_started", 1),
            "never_started",
            (
                "the publisher could not be reached (connection refused); 1 of 10 tries are used up; the next one "
                "comes in 12 s"
            ),
        ),
        # Under way, and dead.
        (WAITING, tried(None), Past(), "publishing", "it is being published now: try 3 began 9.0 s ago"),
        # Longer than the call may take, while its claim still holds.
        (
            WAITING,
            tried(None, started_at=NOW - timedelta(seconds=31)),
            past("unknown", 1),
            "no_outcome",
            "try 3 began 31 s ago and has no outcome: its worker may be gone; another takes it over in 12 s",
        ),
        (
            WAITING,
            tried(None, started_at=NOW - timedelta(seconds=30)),
            past("unknown", 1),
            "publishing",
            "it is being published now: try 3 began 30 s ago",
        ),
        (
            EXPIRED,
            tried(None),
            past("unknown", 1),
            "died",
            "the worker that made try 3 died or hangs; rescue takes the post over within seconds, under the same key",
        ),
        # An operator put it back: its claim has no try of its own.
        (EXPIRED, tried("unknown", claim_token="clm_0", forgiven=True), Past(), "put_back", None),
        (EXPIRED, None, Past(), "put_back", None),
        (row(**RETAKEN, claim_expires_at=SOON), None, Past(), "publishing", "it is being published now"),
        # Renders.
        (
            row(status="pending_render", claim="render", claim_token="c", claim_expires_at=SOON, render_tries=1),
            None,
            Past(),
            "rendering",
            "it is being rendered now: try 2 of 10",
        ),
        (
            row(status="pending_render", claim="render", claim_token="c", claim_expires_at=GONE, render_tries=1),
            None,
            Past(),
            "render_died",
            "the worker that made try 2 to render it died or hangs; rescue takes it over within seconds",
        ),
        (
            row(status="pending_render", retry_at=SOON, render_tries=2),
            None,
            Past(),
            "between_renders",
            "its last render failed; 2 of 10 tries are used up; the next one comes in 12 s",
        ),
        (
            row(status="pending_render", retry_at=SOON, render_waits=True),
            None,
            Past(),
            "between_renders",
            "the renderer asks to wait, or is still at work; 0 of 10 tries are used up; the next one comes in 12 s",
        ),
        # The renderer's own answer, as the publisher's.
        (
            between_renders("misconfigured", "the service answered 401: token expired", render_tries=3),
            None,
            Past(),
            "render_misconfigured",
            (
                "the renderer is set up wrongly (the service answered 401: token expired); 3 of 10 tries are used up; "
                "the next one comes in 12 s"
            ),
        ),
        (
            between_renders("not_now", "slow down", render_waits=True),
            None,
            Past(),
            "render_not_now",
            "the renderer asks to wait (slow down); 0 of 10 tries are used up; the next one comes in 12 s",
        ),
        (
            between_renders("processing", "the service is still at work", render_waits=True),
            None,
            Past(),
            "render_processing",
            "the renderer is still at work on it; 0 of 10 tries are used up; the next one comes in 12 s",
        ),
        (
            between_renders("unknown", "timed out", render_tries=1),
            None,
            Past(),
            "render_unknown",
            "its last render got lost (timed out); 1 of 10 tries are used up; the next one comes in 12 s",
        ),
        (
            row(
                status="pending_render",
                claim="render",
                claim_token="c",
                claim_expires_at=SOON,
                render_tries=1,
                render_outcome="server_error",
                render_message="503",
            ),
            None,
            Past(),
            "rendering",
            "it is being rendered now: try 2 of 10; before that the renderer failed (503)",
        ),
        (
            row(status="pending_render"),
            None,
            Past(),
            "unrendered",
            "it waits for its render, and goes out right after it",
        ),
        (row(status="pending_render", scheduled_time=SOON), None, Past(), "unrendered", "it waits for its render"),
        # Nobody at it.
        (row(enqueued_at=None), None, Past(), "unsent", None),
        (row(), None, Past(), "sent", None),
        (row(), tried("unknown", forgiven=True), Past(), "sent", None),
        (row(scheduled_time=SOON), None, Past(), "waits", "it waits for its time"),
        # The end.
        (row(status="posted"), tried("done"), Past(), "posted", "it went out"),
        (row(deleted=True), None, Past(), "deleted", None),
        (
            row(status="failed", failure_reason="suspended"),
            tried("refused", "suspended"),
            Past(),
            "failed",
            "it failed: suspended; the publisher refused it; it did not go out",
        ),
        # A refusal whose words are those of an unknown outcome is a refusal: its class says so.
        (
            row(status="failed", failure_reason="publish_outcome_unknown", failure_class="refused"),
            tried("refused", "publish_outcome_unknown"),
            Past(),
            "failed",
            "it failed: publish_outcome_unknown; the publisher refused it; it did not go out",
        ),
        (
            row(
                status="failed",
                failure_reason="publisher_unavailable",
                failure_class="misconfigured",
                failure_message="the service answered 401",
            ),
            tried("misconfigured", "the service answered 401"),
            past("misconfigured", 10),
            "failed",
            (
                "it failed: publisher_unavailable; the publisher is set up wrongly; it may have gone out; last "
                "words on try 3: the service answered 401"
            ),
        ),
        (
            row(
                status="failed",
                failure_reason="renderer_unavailable",
                failure_class="render_busy",
                failure_message="queue full",
            ),
            None,
            Past(),
            "failed",
            (
                "it failed: renderer_unavailable; the renderer asked to wait, or was at work, for an hour; it did not "
                "go out; last words: queue full"
            ),
        ),
        (
            row(status="failed", failure_reason="publish_outcome_unknown"),
            tried("refused", "duplicate"),
            Past(),
            "failed",
            "it failed: publish_outcome_unknown; it may have gone out; last words on try 3: duplicate",
        ),
    ],
)
def test_the_reason(post: Row, last: LastTry | None, before: Past, code: str, words: str | None) -> None:
    said = reasons.of(post, last, before, NOW)
    assert said.code == code
    if words is not None:
        assert said.words == words


def test_a_worker_is_called_dead_only_where_a_try_has_no_end() -> None:
    """Every outcome that can stand beside a claim whose time is over, and every hour of the claim."""
    for outcome in [None, *Outcome]:
        for expires_at in (SOON, GONE):
            post = row(**RETAKEN, claim_expires_at=expires_at)
            said = reasons.of(post, tried(outcome), past("unknown", 1), NOW)
            assert ("died" in said.words) == (outcome is None and expires_at is GONE), (outcome, said)


def test_a_next_try_within_a_second_has_no_milliseconds() -> None:
    soon = row(**RETAKEN, claim_expires_at=NOW + timedelta(milliseconds=587))
    assert reasons.of(soon, tried("not_now"), Past(), NOW).words.endswith("the next one comes within a second")


def test_a_script_gets_the_numbers() -> None:
    said = reasons.of(WAITING, tried("server_error"), past("server_error"), NOW, reasons.Limits(failures=5))
    assert said == Reason("server_error", said.words, 3, 5, SOON)
