"""Calls of outside services on real sockets: what is sent, what answers mean, and what a start says."""

import json
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shared.domain.service_answers import Reply
from shared.settings import settings
from shared.telemetry import metrics
from tests.reference_services.signatures import genuine
from tests.worker.outbound.scripted_server import BODY, NOW, SECRET, ScriptedServer, answer, made, said, wire
from worker.outbound import services

__all__ = ["wire"]


def test_a_request_carries_body_key_try_and_a_signature_that_the_documented_code_accepts(
    wire: ScriptedServer,
) -> None:
    said(wire, answer(200, b'{"platformPostId": "tt_9"}'))
    assert made() == Reply("done", {"platformPostId": "tt_9"})
    ((first, headers, body),) = wire.requests
    assert first == "POST /publisher?a=b%20c HTTP/1.1"
    assert body.decode() == BODY
    assert headers["host"] == f"127.0.0.1:{wire.port}"
    assert (headers["idempotency-key"], headers["redraft-attempt"]) == ("key_1", "3")
    assert headers["content-type"] == "application/json"
    signature = headers["redraft-signature"]
    assert signature.startswith(f"t={int(NOW.timestamp())},v1=")
    assert genuine(SECRET, signature, body, NOW.timestamp())
    assert not genuine(SECRET, signature, body + b" ", NOW.timestamp())
    assert not genuine("another", signature, body, NOW.timestamp())
    assert not genuine(SECRET, signature, body, NOW.timestamp() + 301)
    assert not genuine(SECRET, signature.replace("t=", "t=9"), body, NOW.timestamp())


def test_with_two_secrets_a_request_is_signed_under_each(wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_SERVICE_SECRET", f"{SECRET},whsec_next")
    settings.cache_clear()
    made()
    ((_, headers, body),) = wire.requests
    signed = headers["redraft-signature"]
    assert all(genuine(secret, signed, body, NOW.timestamp()) for secret in (SECRET, "whsec_next"))
    assert not genuine(f"{SECRET},whsec_next", signed, body, NOW.timestamp())
    assert signed.count("v1=") == 2


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", Reply("done", {"platformPostId": None})),
        (201, b'{"platformPostId": 17}', Reply("done", {"platformPostId": "17"})),
        (200, b'{"platformPostId": "a\\u0000b"}', Reply("done", {"platformPostId": None})),
        (200, json.dumps({"platformPostId": "x" * 256}).encode(), Reply("done", {"platformPostId": None})),
        (200, b'{"platformPostId": true}', Reply("done", {"platformPostId": None})),
        (400, b'{"error": {"message": "no such account"}}', Reply("refused", message="no such account")),
        (404, b"<html>", Reply("misconfigured", message="the service answered 404")),
        (429, b'{"error": "slow down"}', Reply("not_now", message="the service answered 429")),
        (422, b'{"error": {"message": "a\\u0000b\\n c"}}', Reply("refused", message="a b c")),
        (422, b'{"error": {"message": "half a \\ud800 pair"}}', Reply("refused", message="the service answered 422")),
        (500, b"{}", Reply("server_error", message="the service answered 500")),
        (503, b'{"error": {"message": "later"}}', Reply("server_error", message="later")),
        (302, b"{}", Reply("misconfigured", message="the service answered 302")),
    ],
)
def test_the_status_decides_and_words_are_made_fit_for_a_row(
    wire: ScriptedServer, status: int, body: bytes, expected: Reply
) -> None:
    said(wire, answer(status, body, headers="Location: http://127.0.0.1:1/\r\n"))
    assert made() == expected
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"renderedUrl": "https://x.example/v.mp4", "thumbnailUrl": "https://x.example/t.jpg"}, "done"),
        ({"renderedUrl": "https://x.example/v.mp4"}, "done"),
        ({"renderedUrl": "https://x.example/v.mp4", "thumbnailUrl": "javascript:alert(1)"}, "done"),
        ({}, "server_error"),
        ({"renderedUrl": "ftp://x.example/v.mp4"}, "server_error"),
        ({"renderedUrl": "https://x.example/\u0000"}, "server_error"),
        ({"renderedUrl": "https://x.example/" + "v" * 2048}, "server_error"),
        ({"renderedUrl": ["https://x.example/v.mp4"]}, "server_error"),
    ],
)
def test_a_render_is_done_only_with_a_url_that_can_stand_in_a_row(
    wire: ScriptedServer, body: Any, expected: str
) -> None:
    said(wire, answer(200, json.dumps(body).encode()))
    reply = made("render")
    assert reply.kind == expected
    if expected == "done":
        usable = body.get("thumbnailUrl") if "javascript" not in str(body.get("thumbnailUrl")) else None
        assert reply.data == {"renderedUrl": "https://x.example/v.mp4", "thumbnailUrl": usable}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("Retry-After: 7\r\n", 7.0),
        ("retry-after: Sun, 01 Mar 2026 12:00:30 GMT\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\n", 30.0),
        ("Retry-After: 7\r\nRetry-After: 9\r\n", 7.0),
        ("Retry-After: \xff\r\n", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(wire: ScriptedServer, headers: str, seconds: float | None) -> None:
    said(wire, answer(429, b"{}", headers=headers))
    assert made().retry_after == seconds


def test_a_date_to_wait_for_is_measured_by_the_databases_clock_where_the_answer_has_none(
    wire: ScriptedServer,
) -> None:
    said(wire, answer(503, b"{}", headers="Retry-After: Sun, 01 Mar 2026 12:01:00 GMT\r\n"))
    asked = made().retry_after
    assert asked is not None
    assert 55 < asked <= 60


def test_what_is_said_before_and_after_the_answer_does_not_count(wire: ScriptedServer) -> None:
    said(
        wire,
        b"HTTP/1.1 103 Early\r\nRetry-After: 900\r\n\r\n" + answer(429) + answer(429, headers="Retry-After: 800\r\n"),
    )
    assert made() == Reply("not_now", message="the service answered 429")


def test_a_service_that_is_set_up_wrongly_is_loud_once_a_minute_and_counted(
    wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch, fresh_log: None
) -> None:
    monkeypatch.setattr(services, "_reported", {})

    def counted() -> float:
        return metrics.WORKER.get_sample_value("redraft_service_answers_total", labels) or 0.0

    labels = {"service": "publish", "meaning": "misconfigured"}
    before = counted()
    said(wire, answer(401, b'{"error": {"message": "token expired"}}'))
    with capture_logs() as logs:
        for _ in range(3):
            assert made().kind == "misconfigured"
    assert counted() == before + 3
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["found"]) == ("service_set_up_wrongly", "the service answered 401")
    assert "REDRAFT_PUBLISHER_URL" in line["cure"]


def test_a_login_in_the_url_is_sent_as_such_and_never_logged(
    wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", f"http://us%40er:pass@127.0.0.1:{wire.port}/p?token=hush")
    settings.cache_clear()
    with capture_logs() as logs:
        made()
        services.announce(["publish"])
    assert wire.requests[0][1]["authorization"] == "Basic dXNAZXI6cGFzcw=="
    assert not any(secret in str(logs) for secret in ("pass", "hush", SECRET))


@pytest.fixture
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that has not been used yet: structlog's remember the configuration of their first line."""
    monkeypatch.setattr(services, "log", structlog.get_logger())


def test_without_a_url_a_sandbox_serves_and_every_start_says_so(fresh_log: None) -> None:
    settings.cache_clear()
    with capture_logs() as logs:
        services.announce(["publish", "render", "webhooks", "edits"])
    assert [(line["event"], line["call"]) for line in logs] == [
        ("sandbox_serves", "publish"),
        ("sandbox_serves", "render"),
    ]
    with capture_logs() as logs:
        assert made() == made()
        assert made("render").data["renderedUrl"].startswith("https://sandbox.invalid/")
    assert "ünïcode" not in str(logs)


def test_a_start_with_services_says_where_and_warns_of_a_missing_secret_and_a_bad_url(
    monkeypatch: pytest.MonkeyPatch, fresh_log: None
) -> None:
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", "https://publisher.example.com/publish")
    monkeypatch.setenv("REDRAFT_RENDERER_URL", "renderer.example.com")
    settings.cache_clear()
    with capture_logs() as logs:
        services.announce(["publish", "render"])
    assert [line["event"] for line in logs] == ["service", "unsigned", "service_url_unusable"]
    assert logs[0]["host"] == "publisher.example.com"
