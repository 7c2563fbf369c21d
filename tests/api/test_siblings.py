"""`redraft api --processes 2`: two processes on one port, which serve, count and end as one."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest

from shared.local import commands
from tests import factories
from tests.api.test_metrics import STALE, figures, total
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, Processes
from tests.stack import Running
from tests.waiting import eventually

REDRAFT = [sys.executable, "-m", "shared.cli.main"]


class Pair:
    """Both processes, and the one that keeps them."""

    def __init__(self, stack: Running) -> None:
        self.stack = stack
        port = free_port()
        self.keeper: Process = stack.processes.start(
            [*REDRAFT, "api", "--processes=2", f"--port={port}"], **stack.environment
        )
        self.keeper.port = port
        eventually(lambda: len(self.listening()) == 2, within=60, because="both listen")

    def listening(self) -> list[int]:
        """The pids of the processes that accept connections."""
        if not self.keeper.running:
            raise RuntimeError(self.keeper.output()[-4000:])
        return [
            child.pid
            for child in psutil.Process(self.keeper.pid).children(recursive=True)
            if any(one.status == psutil.CONN_LISTEN for one in child.net_connections("tcp"))
        ]

    @contextmanager
    def reached(self) -> Iterator[dict[int, httpx.Client]]:
        """A client with an open connection to each process, by its pid."""
        clients: dict[int, httpx.Client] = {}
        with ExitStack() as opened:
            for _ in range(200):
                client = opened.enter_context(self._client())
                stream = client.get("/healthz").extensions["network_stream"]
                port = stream.get_extra_info("client_addr")[1]
                pid = next(pid for pid in self.listening() if port in _ports_of_clients(pid))
                clients.setdefault(pid, client)
                if len(clients) == 2:
                    yield clients
                    return
        raise AssertionError(f"200 connections, all of them to {set(clients)}")

    def _client(self) -> httpx.Client:
        key = {"Authorization": f"Bearer {factories.SECRET}"}
        return httpx.Client(base_url=self.keeper.url, headers=key, timeout=40, **LOOPBACK)


def _ports_of_clients(pid: int) -> set[int]:
    return {one.raddr.port for one in psutil.Process(pid).net_connections("tcp") if one.raddr}


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextmanager
def started(database_url: str, redis_url: str) -> Iterator[Pair]:
    processes = Processes()
    stack = Running(processes, database_url, redis_url)
    try:
        yield Pair(stack)
    finally:
        stack.close()
        processes.close()


@pytest.fixture(scope="module")
def pair(servers: tuple[str, str]) -> Iterator[Pair]:
    with started(*servers) as pair:
        pair.stack.start_worker("edits")
        yield pair


def test_both_serve_and_each_hears_its_own_answers(pair: Pair) -> None:
    def edit(client: httpx.Client, post: str, number: int) -> int:
        return client.patch(f"/v1/posts/{post}", json={"caption": f"edit {number}"}).status_code

    posts = [pair.stack.post() for _ in range(8)]
    with pair.reached() as both, ThreadPoolExecutor(8) as threads:
        clients = list(both.values())
        made = [threads.submit(edit, clients[n % 2], posts[n % 8], n) for n in range(64)]
        assert {one.result() for one in made} == {200}


def test_whichever_is_scraped_shows_what_both_counted(pair: Pair) -> None:
    def accepted(client: httpx.Client) -> dict[str, float]:
        found = figures(client.get("/metrics"))
        assert total(found, "redraft_waiting_requests") == 0
        return {dict(labels)["place"]: value for (name, *labels), value in found.items() if "edits_accepted" in name}

    with pair.reached() as both:
        for client in both.values():
            assert client.patch(f"/v1/posts/{pair.stack.post()}", json={"caption": "counted"}).status_code == 200
        made = pair.stack.scalar("SELECT count(*) FROM edits")
        for client in both.values():

            def all_shown(client: httpx.Client = client) -> bool:
                counted = accepted(client)
                return counted.keys() == {"1", "2"} and min(counted.values()) > 0 and sum(counted.values()) == made

            eventually(all_shown, within=STALE, every=0.3)


def test_one_that_dies_is_started_again_and_the_other_serves_meanwhile(pair: Pair) -> None:
    with pair.reached() as clients:
        dead, other = clients
        os.kill(dead, signal.SIGKILL)
        for _ in range(20):
            assert clients[other].patch(f"/v1/posts/{pair.stack.post()}", json={"caption": "x"}).status_code == 200
    eventually(lambda: len(set(pair.listening()) - {dead}) == 2, within=60)
    with pair.reached() as clients:
        assert dead not in clients


def test_both_end_with_their_keeper(database_url: str, redis_url: str) -> None:
    with started(database_url, redis_url) as pair:
        both = pair.listening()
        assert pair.keeper.stop(within=20) == 0
        assert not any(map(_runs, both))


def test_both_die_with_a_killed_keeper(database_url: str, redis_url: str) -> None:
    with started(database_url, redis_url) as pair:
        both = pair.listening()
        os.kill(pair.keeper.pid, signal.SIGKILL)
        eventually(lambda: not any(map(_runs, both)), within=20)


def test_a_port_of_another_program_is_refused(processes: Processes, database_url: str, redis_url: str) -> None:
    with socket.socket() as taken:
        # One that would let others join it.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
        started = processes.start([*REDRAFT, "api", "--processes=2", f"--port={port}"], COLUMNS="200", **environment)
        assert started.wait(within=30) == 2
        assert f"Port {port} is in use by another program." in started.output()


def test_of_two_pairs_that_start_together_one_is_refused(
    processes: Processes, database_url: str, redis_url: str
) -> None:
    environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url, "COLUMNS": "200"}
    argv = [*REDRAFT, "api", "--processes=2", f"--port={free_port()}"]
    both = [processes.start(argv, **environment) for _ in range(2)]
    eventually(lambda: sum(not one.running for one in both) == 1, within=30)
    refused, kept = sorted(both, key=lambda one: one.running)
    assert "is in use by another program." in refused.output()
    eventually(lambda: "running on http" in kept.output(), within=60)


@pytest.mark.parametrize(
    ("chosen", "cores", "names"),
    [
        (0, 1, ["api"]),
        (0, 2, ["api"]),
        (0, 3, ["api"]),
        (0, 4, ["api-1", "api-2"]),
        (0, 64, ["api-1", "api-2", "api-3", "api-4"]),
        (1, 64, ["api"]),
        (2, 1, ["api-1", "api-2"]),
        (6, 2, [f"api-{n}" for n in range(1, 7)]),
    ],
)
def test_a_process_for_each_two_cores_unless_it_is_told_how_many(chosen: int, cores: int, names: list[str]) -> None:
    places = commands.api_places(8000, chosen, cores)
    assert list(places) == names
    assert [more["REDRAFT_API_PLACE"] for more in places.values()] == (
        [""] if len(names) == 1 else [f"8000/{n}" for n in range(1, len(names) + 1)]
    )
