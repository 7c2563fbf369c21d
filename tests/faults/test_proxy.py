"""The network of the tests misbehaves as it says, so that what is shown behind it is shown."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy, Slow, Way
from tests.waiting import eventually


class Echo(socketserver.BaseRequestHandler):
    """Says back what it hears, and remembers it."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        try:
            while heard := self.request.recv(1024):
                server.heard.append(heard)
                self.request.sendall(heard)
        except ConnectionResetError:
            server.resets += 1
        server.ended += 1


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    resets = ended = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard: list[bytes] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(f"redis://:secret@127.0.0.1:{server.server_address[1]}/3") as proxy:
        yield proxy


def connected(proxy: Proxy, patience: float = 5) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=patience)


def said(wire: socket.socket, words: bytes) -> bytes:
    wire.sendall(words)
    return wire.recv(1024)


def test_what_is_said_passes_both_ways_and_so_does_the_end(proxy: Proxy, server: Server) -> None:
    assert proxy.url == f"redis://:secret@127.0.0.1:{proxy.port}/3"
    with connected(proxy) as wire:
        assert said(wire, b"hello") == b"hello"
        assert (proxy.open, dict(proxy.passed)) == (1, {"up": 5, "down": 5})
    eventually(lambda: (server.ended, proxy.open) == (1, 0), within=30)


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_reaches_both_ends(proxy: Proxy, server: Server, reset: bool) -> None:
    with connected(proxy) as wire, connected(proxy) as other:
        assert said(wire, b"hello") == said(other, b"hello") == b"hello"
        assert proxy.cut(reset=reset) == 2
        if reset:
            with pytest.raises(ConnectionResetError):
                wire.recv(1)
        else:
            assert wire.recv(1) == b""
        eventually(lambda: (server.ended, proxy.open) == (2, 0), within=30)
        assert server.resets == (2 if reset else 0)
    with connected(proxy) as anew:
        assert said(anew, b"again") == b"again"


def test_a_refused_connection_leaves_the_others_alone_and_is_taken_again_when_healed(proxy: Proxy) -> None:
    with connected(proxy) as wire:
        assert said(wire, b"hello") == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
        assert said(wire, b"still") == b"still"
        proxy.heal()
        with connected(proxy) as anew:
            assert said(anew, b"again") == b"again"


def test_a_delay_is_paid_by_each_chunk_each_way(proxy: Proxy) -> None:
    with connected(proxy, 20) as wire:
        proxy.delay(0.1)
        began = time.monotonic()
        assert said(wire, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.2
        # Longer than this socket is patient.
        proxy.delay(60)
        proxy.heal()
        assert said(wire, b"hello") == b"hello"


def test_a_slow_way_carries_a_window_in_a_round_trip_and_every_byte_in_its_place(server: Server) -> None:
    sent = bytes(range(256)) * 4096
    slow = Slow(latency=0.02, window=128 * 1024)
    with Proxy(f"redis://127.0.0.1:{server.server_address[1]}", slow=slow) as proxy, connected(proxy) as wire:
        began = time.monotonic()

        def talk() -> None:
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)

        talking = threading.Thread(target=talk)
        talking.start()
        heard = b"".join(iter(lambda: wire.recv(65536), b""))
        talking.join(10)
        assert heard == sent
        # Eight windows, each of which waits for the one before to be acknowledged.
        assert time.monotonic() - began >= 7 * 0.04
        assert dict(proxy.passed) == {"up": len(sent), "down": len(sent)}


def test_a_slow_way_takes_no_more_than_its_window_from_who_sends_while_nobody_reads(server: Server) -> None:
    slow = Slow(latency=0.0, window=64 * 1024)
    with Proxy(f"redis://127.0.0.1:{server.server_address[1]}", slow=slow) as proxy, connected(proxy, 0.5) as wire:
        with pytest.raises(TimeoutError):
            wire.sendall(bytes(50_000_000))
        # What the echo says back is not read: buffers fill, and then nobody takes anything any more.
        assert proxy.passed["up"] < 10_000_000


def test_a_narrow_way_carries_so_many_bytes_a_second(server: Server) -> None:
    slow = Slow(latency=0.0, bandwidth=400_000)
    with Proxy(f"redis://127.0.0.1:{server.server_address[1]}", slow=slow) as proxy, connected(proxy) as wire:
        began = time.monotonic()
        threading.Thread(target=wire.sendall, args=(bytes(100_000),), daemon=True).start()
        heard = 0
        while heard < 100_000:
            heard += len(wire.recv(65536))
        assert time.monotonic() - began >= 0.24


@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)], ids=["both", "up", "down"])
def test_a_half_open_connection_stays_up_and_silent_for_ever_and_a_new_one_is_sound_when_healed(
    proxy: Proxy, server: Server, ways: tuple[Way, ...]
) -> None:
    with connected(proxy) as wire, connected(proxy) as idle:
        assert said(wire, b"hello") == said(idle, b"hello") == b"hello"
        proxy.swallow(ways)
        # From here on it waits for what never comes.
        wire.settimeout(0.3)
        with pytest.raises(TimeoutError):
            said(wire, b"lost?")
        eventually(lambda: proxy.swallowed[ways[0]] == 5, within=30)
        # What is swallowed on the way back was heard all the same.
        assert (b"lost?" in server.heard) == ("up" not in ways)
        proxy.heal()
        with pytest.raises(TimeoutError):
            said(wire, b"still")
        assert said(idle, b"idle") == b"idle", "nothing of it was lost"
        with connected(proxy) as anew:
            assert said(anew, b"anew") == b"anew"
