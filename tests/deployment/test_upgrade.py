"""Two API processes behind a real nginx are replaced under load, as docs/deployment.md says: no request is refused."""

import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from shared.local import commands
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.docs.pages import blocks
from tests.docs.test_nginx import FRAME, NGINX
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process
from tests.stack import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here; Debian's is in nginx-light")
CLIENTS = 4
ROUNDS = 2


@pytest.fixture
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("upgraded", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits") as stack:
        yield stack
    postgres.drop_database("upgraded")


class Site:
    """nginx with the page's configuration, and the file that names the two API processes."""

    def __init__(self, stack: Running, folder: Path) -> None:
        (block,) = [block for block in blocks("docs/deployment.md") if block.info == "nginx"]
        self.stack, self.port, self.ports = stack, free_port(), [free_port(), free_port()]
        self.upstream = folder / "upstream.conf"
        site = block.text.replace("server 127.0.0.1:8000;", f"include {self.upstream};")
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        self.apis = {port: self.start(port) for port in self.ports}
        self.name()
        (folder / "nginx.conf").write_text(FRAME.format(folder=folder, site=site))
        folder.chmod(0o777)
        self.nginx = stack.processes.start([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")])
        eventually(lambda: self.answers(self.port), within=30)

    def start(self, port: int) -> Process:
        api = self.stack.processes.start(commands.api(port=port), **self.stack.environment)
        eventually(lambda: self.answers(port), within=30, because="the API is ready")
        return api

    @staticmethod
    def answers(port: int) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/readyz", **LOOPBACK).status_code == 200
        return False

    def name(self, down: int = 0) -> None:
        lines = (f"server 127.0.0.1:{port}{' down' if port == down else ''};\n" for port in self.ports)
        self.upstream.write_text("".join(lines))

    def reload(self) -> None:
        """Have nginx read it, and wait until the workers with the old list have answered what they had."""
        before = set(self.nginx.tree())
        self.nginx.signal(signal.SIGHUP)
        eventually(lambda: not before & {pid for pid in self.nginx.tree() if alive(pid)}, within=60)

    def replace(self, port: int) -> int:
        """The exit code of the old one."""
        self.name(down=port)
        self.reload()
        code = self.apis[port].stop(within=40)
        self.apis[port] = self.start(port)
        self.name()
        self.reload()
        return code


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_no_request_is_refused_while_both_are_replaced(stack: Running, tmp_path: Path) -> None:
    site, ended, said = Site(stack, tmp_path), threading.Event(), Counter[str]()
    key = {"Authorization": f"Bearer {factories.SECRET}"}
    posts = [stack.post() for _ in range(CLIENTS)]

    def write_on(post: str) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            try:
                answer = httpx.patch(
                    f"http://127.0.0.1:{site.port}/v1/posts/{post}",
                    json={"caption": f"number {number}"}, headers=key, timeout=40, **LOOPBACK,
                )  # fmt: skip
                said[str(answer.status_code)] += 1
            except httpx.TransportError as error:
                said[repr(error)] += 1

    clients = [threading.Thread(target=write_on, args=[post]) for post in posts]
    for client in clients:
        client.start()
    codes = []
    for port in site.ports * ROUNDS:
        since = sum(said.values())
        codes.append(site.replace(port))
        eventually(lambda since=since: sum(said.values()) > since + CLIENTS, within=30)
    ended.set()
    for client in clients:
        client.join()
    assert set(said) <= {"200", "202"}, said
    assert said["200"] > 2 * ROUNDS * CLIENTS
    assert codes == [0] * len(codes)
    assert not re.search(r"\[(error|crit|alert)\]", (tmp_path / "error.log").read_text())
