"""POST over connections that are kept open for the next call, with one deadline for the whole call.

Not httpx: with 512 threads each of its calls costs 2.4 ms of a core, one of these 0.3 ms. And its time-outs begin anew
with every byte, so that a server that sends byte by byte would keep a thread for ever.
"""

import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

import httptools

ANSWER_LIMIT = 1 << 20
CONNECT_WITHIN = 5.0
# Servers close idle connections, some after two seconds. A client that writes just then cannot know whether the server
# received it. In a burst connections are used again at once; after a pause a new one costs nothing that matters.
IDLE = 1.0


class NotSentError(Exception):
    """Nothing of the request can have been sent: name unknown, refused, no handshake, no time left."""


class CutOffError(Exception):
    """The request may have been sent, and no whole answer came back in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's status and body; `body` is None where it was longer than ANSWER_LIMIT, and cut off there.

    `retry_after`, `date`: those headers as they came. `ended`: its headers say where it ends. Else only the end of the
    connection does, and it may have been cut off.
    """

    status: int
    body: bytes | None
    retry_after: str | None = None
    date: str | None = None
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart once: where to connect, and the lines that begin every request to it."""

    tls: bool
    host: str
    port: int
    head: bytes


@lru_cache(maxsize=16)
def target_of(url: str) -> Target:
    """Raises ValueError, without quoting the URL, for one that is no http(s) URL with a host."""
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError:
        host, port = "", None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("not an http or https URL with a host")
    tls = parts.scheme == "https"
    usual = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
        f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else ""
    )
    lines = [f"POST {path} HTTP/1.1", f"Host: {shown}" + (f":{port}" if port not in {None, usual} else "")]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {b64encode(login.encode()).decode()}")
    lines += ["User-Agent: redraft", "Accept: application/json", "Content-Type: application/json", ""]
    return Target(tls, host, port or usual, "\r\n".join(lines).encode())


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # httpx brings its own list of authorities, for machines whose OpenSSL finds none. SSL_CERT_FILE comes first.
    import httpx  # noqa: PLC0415  -- its import takes a quarter of a second; only https needs it

    return httpx.create_ssl_context()


class _Connection:
    """One connection; used by one thread at a time."""

    def __init__(self, target: Target, deadline: float) -> None:
        self.used_at = 0.0
        self._socket = self._connect(target, min(deadline, time.monotonic() + CONNECT_WITHIN))

    @staticmethod
    def _connect(target: Target, deadline: float) -> socket.socket:
        failure: Exception | None = None
        try:
            places = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NotSentError("the name of the host is unknown") from error
        for number, (family, kind, protocol, _, address) in enumerate(places):
            opened = None
            try:
                opened = socket.socket(family, kind, protocol)
                # An address that never answers must leave time for the next one.
                opened.settimeout(_left(deadline) / (len(places) - number))
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if target.tls:
                    opened.settimeout(_left(deadline))
                    opened = _tls().wrap_socket(opened, server_hostname=target.host)
            except OSError as error:
                failure = error
                if opened is not None:
                    opened.close()
            else:
                return opened
        raise NotSentError(f"no connection: {_words(failure)}") from failure

    def alive(self) -> bool:
        """Whether it may be used again: not idle for long, and nothing to read, which could only be its end."""
        if time.monotonic() - self.used_at > IDLE:
            return False
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return not look.poll(0)

    def send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(_left(deadline))
            rest = rest[self._socket.send(rest) :]

    def receive(self, deadline: float) -> bytes:
        self._socket.settimeout(_left(deadline))
        return self._socket.recv(65536)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


class _Reading:
    """An answer as httptools parses it while its bytes come in."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.size = 0
        self.chunks: list[bytes] = []
        self.headers: dict[bytes, str] = {}
        self.framed = self.complete = self.overflows = self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.framed |= name in {b"content-length", b"transfer-encoding"}
        if name in {b"retry-after", b"date"} and not self.complete:
            self.headers.setdefault(name, value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.parser.get_status_code()

    def on_body(self, chunk: bytes) -> None:
        if not self.complete:
            self.size += len(chunk)
            self.chunks.append(chunk)

    def on_message_begin(self) -> None:
        # A second answer to one request: this connection cannot be trusted any more.
        self.overflows = self.complete

    def on_message_complete(self) -> None:
        if self.status < 200:  # "100 Continue": the answer is yet to come
            self._begin()
        else:
            self.complete = True
            self.keep_alive = self.parser.should_keep_alive()

    def answer(self, *, whole: bool = True) -> Answer:
        """The answer that was read; without its body if not `whole`."""
        body = b"".join(self.chunks) if whole else None
        return Answer(self.status, body, self.headers.get(b"retry-after"), self.headers.get(b"date"), self.complete)


_idle: dict[Target, list[_Connection]] = {}
_guard = threading.Lock()


def post(url: str, headers: Mapping[str, str], body: bytes, within: float) -> Answer:
    """POST `body` and read the answer, all in `within` seconds. Follows no redirect, asks no proxy.

    Raises NotSentError, CutOffError; ValueError for a URL that is none. A name look-up may take longer; its request is
    then not sent.
    """
    deadline = time.monotonic() + within
    target = target_of(url)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = target.head + f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
    connection = _take(target) or _Connection(target, deadline)
    if time.monotonic() >= deadline:
        connection.close()
        raise NotSentError("no time was left to send")
    keep = False
    try:
        connection.send(request, deadline)
        answer, keep = _read(connection, deadline)
    except (OSError, httptools.HttpParserError) as error:
        raise CutOffError(_words(error)) from error
    except httptools.HttpParserUpgrade:
        answer = Answer(101, None)
    finally:
        if keep:
            _put_back(target, connection)
        else:
            connection.close()
    return answer


def _read(connection: _Connection, deadline: float) -> tuple[Answer, bool]:
    reading, received = _Reading(), 0
    while not reading.complete:
        data = connection.receive(deadline)
        if not data:
            if reading.status and not reading.framed:  # the end of the connection is the end of the answer
                return reading.answer(), False
            raise CutOffError("the connection was closed before the end of the answer")
        received += len(data)
        reading.parser.feed_data(data)
        if reading.size > ANSWER_LIMIT:
            return reading.answer(whole=False), False
        if received > 2 * ANSWER_LIMIT:
            raise CutOffError("an answer without an end")
    return reading.answer(), reading.keep_alive and not reading.overflows


def _take(target: Target) -> _Connection | None:
    """An open connection, the one that was used last; None if there is none."""
    while True:
        with _guard:
            waiting = _idle.get(target)
            connection = waiting.pop() if waiting else None
        if connection is None or connection.alive():
            return connection
        connection.close()


def _put_back(target: Target, connection: _Connection) -> None:
    connection.used_at = time.monotonic()
    with _guard:
        _idle.setdefault(target, []).append(connection)


def close_idle() -> None:
    """Close every connection that waits for its next call."""
    with _guard:
        waiting = [connection for some in _idle.values() for connection in some]
        _idle.clear()
    for connection in waiting:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _words(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
