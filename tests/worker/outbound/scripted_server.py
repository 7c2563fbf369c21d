"""A server that does on a real socket what a test has written down, and one call of it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest

from shared.domain.service_answers import Reply
from shared.domain.service_answers import Service as Kind
from shared.settings import settings
from worker.outbound import connections
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
