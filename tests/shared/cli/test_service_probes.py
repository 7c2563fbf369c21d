"""The requests by which `redraft doctor` looks at services: real servers, in each way in which they can be wrong."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.cli import service_probes
from shared.cli.service_probes import UntrustedError, answers, answers_ok
from tests import certificates


@contextmanager
def serving(status: int = 200, certificate: tuple[Path, Path] | None = None) -> Iterator[tuple[str, list[str]]]:
    """The URL of a service that answers everything so, and the lines that it was sent."""
    lines: list[str] = []

    class Service(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            lines.append(self.requestline)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}/hooks?token=hushhush", lines
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [200, 204, 301, 401, 404, 405, 500, 501])
def test_a_service_that_answers_at_all_is_there(status: int) -> None:
    with serving(status) as (url, lines):
        answers(url)
    assert lines == ["HEAD /hooks?token=hushhush HTTP/1.1"]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_with_nothing_behind_it_is_no_service(status: int) -> None:
    with serving(status) as (url, _), pytest.raises(OSError, match=f"it answers {status}"):
        answers(url)


def test_an_api_answers_200() -> None:
    with serving(404) as (url, lines), pytest.raises(OSError, match="it answers 404"):
        answers_ok(url)
    assert lines[0].startswith("GET ")
    with serving() as (url, _):
        assert answers_ok(url) == pytest.approx(0, abs=3)


def test_a_certificate_that_is_not_trusted_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red before: a port that took a connection was enough."""
    files = certificates.written(tmp_path)
    with serving(certificate=files) as (url, lines):
        with pytest.raises(UntrustedError, match=r"^self-signed certificate$"):
            answers(url)
        assert lines == []
        # As in a worker whose environment names the authority.
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        answers(url)
        with pytest.raises(UntrustedError, match=r"(?i)hostname mismatch"):
            answers(url.replace("127.0.0.1", "localhost"))


def test_a_port_that_takes_connections_and_says_nothing_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_probes, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            with pytest.raises(OSError, match="no answer in time"):
                answers(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/x?token=hushhush", "connection refused"),
        ("ftp://127.0.0.1/hushhush", "its URL is none of http or https"),
        ("hushhush", "its URL is none of http or https"),
    ],
)
def test_why_a_service_is_not_reached_is_said_without_its_url(url: str, why: str) -> None:
    with pytest.raises(OSError, match=why) as raised:
        answers(url)
    assert "hushhush" not in str(raised.value)
