"""Calls of outside services on real sockets: what is sent, what answers mean, deadlines, connections."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shared.domain.service_answers import Reply
from shared.domain.service_answers import Service as Kind
from shared.settings import settings
from shared.telemetry import metrics
from tests.reference_services.signatures import genuine
from worker.outbound import connections, services
from worker.outbound.services import call

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_test"
BODY = '{"type": "publish", "post": {"caption": "ünïcode ✨"}}'

Handler = Callable[["ScriptedServer", socket.socket], object]


def answer(status: int = 200, body: bytes = b"{}", *, headers: str = "", length: bool = True) -> bytes:
    told = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"HTTP/1.1 {status} Whatever\r\n{told}{headers}\r\n".encode() + body


class ScriptedServer:
    """A server that does on each connection what a test says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.handler: Handler = lambda wire, end: wire.serve(end, answer())
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # without it the thread that accepts would keep the port open
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(end,), daemon=True).start()

    def _run(self, end: socket.socket) -> None:
        with closing(end), suppress(OSError):
            self.handler(self, end)

    def read(self, end: socket.socket) -> bool:
        """One request; False at the connection's end."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = end.recv(65536)
            if not chunk:
                return False
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += end.recv(65536)
        self.requests.append((first, headers, body))
        return True

    def serve(self, end: socket.socket, said: bytes) -> None:
        """Answer every request of the connection alike."""
        while self.read(end):
            end.sendall(said)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    wire = ScriptedServer()
    for name in ("PUBLISHER", "RENDERER", "WEBHOOK"):
        monkeypatch.setenv(f"REDRAFT_{name}_URL", f"http://127.0.0.1:{wire.port}/{name.lower()}?a=b%20c")
    monkeypatch.setenv("REDRAFT_SERVICE_SECRET", SECRET)
    monkeypatch.setenv("REDRAFT_SERVICE_TIMEOUT", "0.6")
    settings.cache_clear()
    yield wire
    wire.closing.set()
    wire.close()
    connections.close_idle()


def made(kind: Kind = "publish", body: str = BODY) -> Reply:
    return call(kind, body, "key_1", 3, NOW)


def said(wire: ScriptedServer, reply: bytes) -> None:
    wire.handler = lambda wire, end: wire.serve(end, reply)


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


def test_a_refused_connection_and_an_unknown_name_never_started(
    wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.close()
    assert made() == Reply("never_started", message="no connection: connection refused")
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", "http://nobody.invalid/")
    settings.cache_clear()
    assert made() == Reply("never_started", message="the name of the host is unknown")


@pytest.mark.parametrize("url", ["ftp://x.example/", "http:///path", "nonsense", "http://[::1/", "http://x:99999/"])
def test_a_url_that_is_none_never_started(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", url)
    settings.cache_clear()
    assert made().kind == "never_started"


def bounded(run: Callable[[], Reply]) -> Reply:
    started = time.monotonic()
    reply = run()
    assert time.monotonic() - started < 3, "the deadline of 0.6 s is one for all of it"
    return reply


def test_a_service_that_hangs_is_an_unknown_outcome_at_the_deadline(wire: ScriptedServer) -> None:
    wire.handler = lambda wire, end: (wire.read(end), wire.closing.wait(20))[0]
    assert bounded(made) == Reply("unknown", message="timed out")


@pytest.mark.parametrize("part", ["head", "body", "chunks"])
def test_a_service_that_drips_does_not_hold_a_thread(wire: ScriptedServer, part: str) -> None:
    def drip(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        if part == "body":
            end.sendall(answer(200, b"", headers="Content-Length: 100000\r\n", length=False))
        elif part == "chunks":
            end.sendall(answer(200, b"", headers="Transfer-Encoding: chunked\r\n", length=False))
        while not wire.closing.wait(0.05):
            end.sendall(b"1\r\nx\r\n" if part == "chunks" else b"H" if part == "head" else b"x")

    wire.handler = drip
    assert bounded(made).kind == "unknown"


def test_a_service_that_sends_the_head_line_by_line_for_ever_is_cut_off(wire: ScriptedServer) -> None:
    def endless(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        end.sendall(b"HTTP/1.1 200 OK\r\n")
        while not wire.closing.is_set():
            end.sendall(b"X-More: and more\r\n" * 100)

    wire.handler = endless
    assert bounded(made).kind == "unknown"


def test_an_answer_over_a_mebibyte_is_cut_off_and_is_none_of_ours(wire: ScriptedServer) -> None:
    sent: list[int] = []

    def flood(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        end.sendall(answer(200, b'{"platformPostId": "', headers="Content-Length: 99999999999\r\n", length=False))
        with suppress(OSError):
            while not wire.closing.is_set():
                end.sendall(b"x" * 65536)
                sent.append(65536)

    wire.handler = flood
    assert bounded(made).kind == "server_error"
    assert sum(sent) < 32 << 20


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_connection_closed_before_the_answers_end_is_an_unknown_outcome(wire: ScriptedServer, cut: bytes) -> None:
    def half(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        end.sendall(cut)

    wire.handler = half
    assert made().kind == "unknown"


def test_an_answer_that_is_no_http_is_an_unknown_outcome(wire: ScriptedServer) -> None:
    said(wire, b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    assert made().kind == "unknown"


def answering(whole: bytes) -> Handler:
    """Reads a request, sends these bytes and closes the connection."""

    def handler(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        end.sendall(whole)

    return handler


def test_an_answer_without_a_length_ends_with_its_connection(wire: ScriptedServer) -> None:
    wire.handler = answering(answer(200, b'{"platformPostId": "tt"}', length=False))
    assert made() == Reply("done", {"platformPostId": "tt"})


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 {} OK\r\n", "HTTP/1.1 {} OK\r\nConnection: close\r\n", "HTTP/1.0 {} OK\r\n"]
)
@pytest.mark.parametrize("body", ["", " \r\n"])
def test_an_empty_answer_that_only_the_end_of_its_connection_ends_may_have_been_cut_off(
    wire: ScriptedServer, head: str, body: str
) -> None:
    def closes(status: int) -> None:
        wire.handler = answering((head.format(status) + "\r\n" + body).encode())

    closes(200)
    assert made() == Reply("unknown", message="the answer 200 was cut off before its body")
    assert made("webhook").kind == "done"
    closes(202)
    assert made().kind == "processing"
    closes(422)
    assert made() == Reply("refused", message="the service answered 422")


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["204", "a length of 0", "no chunk"],
)
def test_an_empty_answer_that_says_its_end_is_done(wire: ScriptedServer, whole: bytes) -> None:
    wire.handler = answering(whole)
    assert made() == Reply("done", {"platformPostId": None})


def test_100_continue_is_not_the_answer(wire: ScriptedServer) -> None:
    said(wire, b"HTTP/1.1 100 Continue\r\n\r\n" + answer(422, b'{"error": {"message": "no"}}'))
    assert made() == Reply("refused", message="no")


def test_a_chunked_answer_is_read_whole(wire: ScriptedServer) -> None:
    chunks = b'b\r\n{"platformP\r\nf\r\nostId": "tt_5"}\r\n0\r\n\r\n'
    said(wire, answer(200, chunks, headers="Transfer-Encoding: chunked\r\n", length=False))
    assert made() == Reply("done", {"platformPostId": "tt_5"})


def test_a_connection_is_used_again_and_one_closed_by_the_other_side_is_not(
    wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE", 60.0)
    for _ in range(3):
        assert made().kind == "done"
    assert (wire.connections, len(wire.requests)) == (1, 3)

    def once(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        end.sendall(answer())

    wire.handler = once
    connections.close_idle()
    for _ in range(3):
        assert made().kind == "done"
        # The server closes at once; until that has arrived, the next call could not know.
        (waiting,) = connections._idle.values()
        until = time.monotonic() + 5
        while waiting[-1].alive() and time.monotonic() < until:
            time.sleep(0.005)
    assert wire.connections == 4


def test_a_connection_that_was_idle_for_long_or_said_more_than_asked_is_not_used_again(
    wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    monkeypatch.setattr(connections, "IDLE", 0.0)
    made()
    assert wire.connections == 2
    monkeypatch.setattr(connections, "IDLE", 60.0)
    said(wire, answer() + answer(500))
    connections.close_idle()
    assert made().kind == "done"
    assert made().kind == "done"
    assert wire.connections == 4


def test_many_calls_are_made_side_by_side(wire: ScriptedServer) -> None:
    together = threading.Barrier(20)

    def wait(wire: ScriptedServer, end: socket.socket) -> None:
        wire.read(end)
        together.wait(10)
        end.sendall(answer())

    wire.handler = wait
    settings.cache_clear()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(20) as threads:
        patch.setenv("REDRAFT_SERVICE_TIMEOUT", "10")
        replies = list(threads.map(lambda _: made(), range(20)))
    settings.cache_clear()
    assert {reply.kind for reply in replies} == {"done"}


def test_neither_proxies_nor_redirects_are_followed(wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    said(wire, answer(307, b"{}", headers=f"Location: http://127.0.0.1:{wire.port}/elsewhere\r\n"))
    assert made().kind == "misconfigured"
    assert [first for first, *_ in wire.requests] == ["POST /publisher?a=b%20c HTTP/1.1"]


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


def test_a_tls_handshake_that_fails_never_started(wire: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", f"https://127.0.0.1:{wire.port}/")
    settings.cache_clear()

    def plain(_: ScriptedServer, end: socket.socket) -> None:
        end.recv(10)
        end.sendall(b"plain words")

    wire.handler = plain
    assert made().kind == "never_started"
    wire.handler = lambda wire, _: wire.closing.wait(20) and None
    assert bounded(made).kind == "never_started"


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
