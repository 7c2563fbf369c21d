"""Connections to outside services on real sockets: deadlines, where an answer ends, and which are used again."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from shared.domain.service_answers import Reply
from shared.settings import settings
from tests.worker.outbound.scripted_server import Handler, ScriptedServer, answer, made, said, wire
from worker.outbound import connections

__all__ = ["wire"]


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
