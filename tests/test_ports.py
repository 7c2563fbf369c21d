"""Ports for tests: those that nobody else is given meanwhile."""

import socket
from pathlib import Path

import pytest

from tests import ports


def test_the_processes_of_a_run_have_no_port_in_common_and_none_that_the_kernel_gives_out() -> None:
    parts = [ports.part(32_767, number, 3, start) for number, start in enumerate((0.0, 0.5, 0.999))]
    every = [port for part in parts for port in part]
    assert len(set(every)) == len(every) > 20_000
    assert min(every) == ports.FIRST
    assert max(every) < 32_767


def test_where_the_kernel_gives_out_nearly_all_there_are_none() -> None:
    assert ports.part(ports.FIRST + 400, 0, 1, 0.0) == ports.part(1_023, 0, 3, 0.0) == []


def test_none_is_chosen_twice_and_none_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        free = [ports.free_port() for _ in range(3)]
        monkeypatch.setattr(ports, "_ours", lambda: iter([busy, free[0]]))
        assert [ports.free_port(), ports.free_port()] == [free[0], free[0]]
    assert len(set(free)) == 3


def test_a_socket_that_asks_for_any_port_gets_none_of_them() -> None:
    given_out = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given_out.exists():
        pytest.skip("no Linux")
    if not ports.part(ports._last(), 0, 1, 0.0):
        pytest.skip("the kernel leaves none")
    with socket.socket() as any_one:
        any_one.bind(("127.0.0.1", 0))
        assert any_one.getsockname()[1] > ports._last()
