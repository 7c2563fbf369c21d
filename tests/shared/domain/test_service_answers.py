"""What answers mean, and both forms of Retry-After: pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from shared.domain.service_answers import Outcome, Past, Reply, Service, read, readable, retry_after

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOGIN = b"\n<!doctype html><title>Log in</title>"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", Reply("done")),
        (204, b" \r\n", Reply("done")),
        (201, b'{"platformPostId": "tt_9"}', Reply("done", {"platformPostId": "tt_9"})),
        (200, b'{"status": "published"}', Reply("done", {"status": "published"})),
        (202, b"", Reply("processing", message="the service is still at work")),
        (202, LOGIN, Reply("processing", message="the service is still at work")),
        (200, b'{"status": "processing"}', Reply("processing", message="the service is still at work")),
        (200, b'{"status": "Processing"}', Reply("processing", message="the service is still at work")),
        (201, b'{"status": "PROCESSING"}', Reply("processing", message="the service is still at work")),
        (200, b'{"status": ["processing"]}', Reply("done", {"status": ["processing"]})),
        (200, b'{"error": {"message": "no"}}', Reply("done", {"error": {"message": "no"}})),
        (200, LOGIN, Reply("server_error", message="the service answered 200 with a page where a JSON object belongs")),
        (
            200,
            b"OK",
            Reply("server_error", message="the service answered 200 with something else where a JSON object belongs"),
        ),
        (
            200,
            None,
            Reply(
                "server_error", message="the service answered 200 with more than we read where a JSON object belongs"
            ),
        ),
        (429, b'{"error": {"message": "slow down"}}', Reply("not_now", message="slow down")),
        (
            401,
            b'{"error": {"message": "bad token"}}',
            Reply("misconfigured", message="the service answered 401: bad token"),
        ),
        (404, LOGIN, Reply("misconfigured", message="the service answered 404")),
        (302, b"", Reply("misconfigured", message="the service answered 302")),
        (422, b'{"error": {"message": "no such account"}}', Reply("refused", message="no such account")),
        (400, b'{"error": "no"}', Reply("refused", message="the service answered 400")),
        (503, b'{"error": {"message": "later"}}', Reply("server_error", message="later")),
        (101, b"", Reply("server_error", message="the service answered 101")),
    ],
)
def test_an_answer_of_a_publisher_or_renderer(status: int, body: bytes | None, expected: Reply) -> None:
    services: list[Service] = ["publish", "render"]
    for service in services:
        assert read(service, status, body) == expected


@pytest.mark.parametrize("body", [b"null", b"[]", b'"ok"', b"17", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_a_2xx_with_anything_but_an_object_is_no_answer_of_a_service_of_ours(body: bytes) -> None:
    assert read("publish", 200, body).outcome is Outcome.SERVER_ERROR


def test_a_receiver_of_webhooks_acknowledges_with_any_2xx_but_a_login_page() -> None:
    for status, body in ((200, b""), (200, b"OK"), (202, b""), (204, None), (200, b'{"status": "processing"}')):
        assert read("webhook", status, body) == Reply("done")
    assert read("webhook", 200, LOGIN).outcome is Outcome.SERVER_ERROR


def test_a_receiver_of_webhooks_ends_an_event_with_410_alone() -> None:
    assert [status for status in range(100, 600) if read("webhook", status, b"").outcome is Outcome.REFUSED] == [410]


def test_a_wait_that_is_asked_for_is_handed_on() -> None:
    for status in (202, 429, 503, 401):
        assert read("publish", status, b"", 17.0).retry_after == 17.0


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("99999999999", 99999999999.0),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120.0),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120.0),
        ("Sun Mar  1 12:02:00 2026", 120.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
        ("Sun, 01 Mar 999999 12:02:00 GMT", None),
        ("9" * 5000, None),
        ("Sun, 01 Mar 2026 12:02:00 GMT" + " " * 5000 + "x", None),
    ],
)
def test_retry_after_comes_in_seconds_or_as_a_date(given: str | None, seconds: float | None) -> None:
    assert retry_after(given, None, NOW) == seconds


def test_a_date_is_measured_by_the_clock_of_whoever_said_it() -> None:
    theirs = NOW + timedelta(minutes=5)
    until = format_datetime(theirs + timedelta(seconds=30), usegmt=True)
    assert retry_after(until, format_datetime(theirs, usegmt=True), NOW) == 30.0
    assert retry_after(until, "nonsense", NOW) == 330.0


def test_words_are_made_fit_for_a_row() -> None:
    assert len(readable("word " * 1000)) == 500
    assert readable(" a\t\x1b[31m  b\u202e ") == "a [31m b"
    assert readable(None) == ""


def test_what_is_known_of_tries_adds_up() -> None:
    def at(minutes: int) -> datetime:
        return NOW + timedelta(minutes=minutes)

    past = Past.of([(Outcome.NEVER_STARTED, at(0)), (Outcome.REFUSED, at(1))])
    assert past == Past(failures=1, failing_since=at(0))
    past = Past.of([(Outcome.NOT_NOW, at(0)), (Outcome.NOT_NOW, at(1)), (Outcome.SERVER_ERROR, at(2))])
    assert past == Past(failures=1, waits=2, busy_since=at(0), failing_since=at(2), maybe_sent=True, maybe_since=at(0))
    past = Past.of([(Outcome.UNKNOWN, at(0)), (Outcome.PROCESSING, at(1)), (Outcome.REFUSED, at(2))])
    lasting = Past(uncertain=True, accepted=True, maybe_sent=True, maybe_since=at(0))
    assert past == replace(lasting, unknown=1, working_since=at(1))
    assert past.forgiven() == lasting
    assert past.forgiven(not_sent=True) == Past(maybe_since=at(0))
    assert past.forgiven().with_try(Outcome.UNKNOWN, at(9)).maybe_since == at(0)


def test_a_2xx_ends_all_doubt_whatever_came_before_and_comes_after() -> None:
    past = Past().with_try(Outcome.UNKNOWN, NOW).with_try(Outcome.DONE, NOW, "tt_1").with_try(Outcome.UNKNOWN, NOW)
    assert past == Past(unknown=2, maybe_sent=True, maybe_since=NOW, done=True, platform_post_id="tt_1")
    assert past.forgiven() == Past(maybe_sent=True, maybe_since=NOW, done=True, platform_post_id="tt_1")
    assert past.forgiven(not_sent=True) == Past(maybe_since=NOW, done=True, platform_post_id="tt_1")
