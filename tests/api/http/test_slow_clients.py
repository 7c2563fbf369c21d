"""Thousands of clients that say nothing, half of something or too much: everybody else is still answered at once."""

import resource
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import psutil
import pytest

from shared.local import commands
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.ports import free_port
from tests.stack import Running, running
from tests.waiting import eventually

IDLE, SLOW, LARGE, FEW = 10_000, 1_000, 100, 256
# What both ends keep open besides: files, the database, Redis, and a margin.
SPARE = 500
AT_ONCE = 1.0
MEBIBYTE = 2**20
HEAD = b"PATCH /v1/posts/post_slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + factories.SECRET.encode() + b"\r\n"
BODY = HEAD + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n" + b'{"caption": "'


@pytest.fixture(scope="module")
def files() -> Iterator[int]:
    """As many open files as this process and those that it starts are let have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield max(soft, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def stack(files: int, postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """One that is started where `files` counts already."""
    url = postgres.create_database("slow_clients", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits") as stack:
        stack.post(post_id="post_slow")
        yield stack


@dataclass
class Crowd:
    """Connections that are held open, and what each of them goes on sending, a byte at a time."""

    port: int
    idle: list[socket.socket] = field(default_factory=list)
    slow: list[socket.socket] = field(default_factory=list)

    def join(self, opened: ExitStack, count: int, said: bytes, *, slow: bool = False) -> None:
        for _ in range(count):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
            if said:
                one.sendall(said)
            (self.slow if slow else self.idle).append(one)

    def drip(self) -> None:
        """A byte more from each that is in the middle of something; who was cut off is cut off."""
        for one in self.slow:
            with suppress(OSError):
                one.send(b"a", socket.MSG_DONTWAIT)


@pytest.fixture
def crowd(stack: Running) -> Iterator[tuple[Crowd, ExitStack]]:
    assert stack.api is not None
    with ExitStack() as opened:
        yield Crowd(stack.api.port or 0), opened


def connections(stack: Running) -> int:
    assert stack.api is not None
    found = psutil.Process(stack.api.pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == stack.api.port for one in found)


def answered_at_once(stack: Running, crowd: Crowd) -> None:
    """A client like any other, on its connection and on new ones, while the crowd goes on."""
    took = []
    for number in range(20):
        crowd.drip()
        began = time.monotonic()
        assert stack.patch("post_slow", {"caption": f"{id(crowd)}-{number}"}).status_code == 200
        took.append(time.monotonic() - began)
        began = time.monotonic()
        assert status(crowd.port) == 200
        took.append(time.monotonic() - began)
    assert max(took) < AT_ONCE, took


def test_ten_thousand_idle_connections_slow_no_other_client_down(
    stack: Running, crowd: tuple[Crowd, ExitStack], files: int
) -> None:
    them, opened = crowd
    assert stack.api is not None
    before = psutil.Process(stack.api.pid).memory_info().rss
    # Beyond half of the connections that the API takes, it ends idle ones after 5 s (api/http/timeouts.py).
    count = min(IDLE, (files - files // 8) // 2 - SPARE)
    assert count > 500, f"only {files} open files are allowed here"
    them.join(opened, count, b"")
    eventually(lambda: connections(stack) >= count, within=60, every=0.2, because="the API has accepted all of them")
    answered_at_once(stack, them)
    assert psutil.Process(stack.api.pid).memory_info().rss - before < 200 * MEBIBYTE


def test_more_connections_than_a_process_may_have_that_asks_for_no_more(stack: Running) -> None:
    """Many systems let a process open 1,024 files, and some 256, until it raises its own limit."""
    argv = ["/bin/sh", "-c", f"ulimit -Sn {FEW}; exec {shlex.join(commands.api(port=(port := free_port())))}"]
    api = stack.processes.start(argv, **stack.environment)
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: api.running and status(port) == 200, within=30, because=f"{url} answers")
    with ExitStack() as opened:
        crowd = Crowd(port)
        crowd.join(opened, 4 * FEW, b"")
        began = time.monotonic()
        assert status(port) == 200
        assert time.monotonic() - began < AT_ONCE
    assert api.stop(within=10) in (0, -15)


def status(port: int) -> int:
    """What a new connection is answered; 0 if nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as new:
            new.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return int(new.recv(12)[9:] or 0)
    except OSError:
        return 0


def test_clients_that_drip_their_heads_and_bodies_slow_no_other_client_down(
    stack: Running, crowd: tuple[Crowd, ExitStack]
) -> None:
    them, opened = crowd
    them.join(opened, SLOW // 2, HEAD + b"X-Slow: ", slow=True)
    them.join(opened, SLOW // 2, BODY, slow=True)
    answered_at_once(stack, them)
    edited = stack.scalar("SELECT count(*) FROM edits WHERE request_id IS NULL OR changes->>'caption' LIKE 'aa%'")
    assert edited == 0, "half a body is no edit"


def test_heads_beyond_measure_are_cut_off_and_slow_no_other_client_down(
    stack: Running, crowd: tuple[Crowd, ExitStack]
) -> None:
    them, opened = crowd
    line = b"X-Long: " + b"a" * 60_000 + b"\r\n"
    for _ in range(LARGE):
        with suppress(OSError):  # cut off while it still sends
            them.join(opened, 1, HEAD + line * 20)
    answered_at_once(stack, them)
    for one in them.idle:
        one.settimeout(5)
        with suppress(ConnectionResetError):
            said = one.recv(65536)
            assert said == b"" or said.startswith(b"HTTP/1.1 400 "), said[:80]
