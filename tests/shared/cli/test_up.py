"""`redraft up`, all of it, as a person starts it."""

import json
import os
import shlex
import signal
import socket
import stat
import sys
import urllib.error
import urllib.request
import uuid
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import psutil
import psycopg
import pytest
import redis

from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Processes, data_dir, marked
from tests.waiting import eventually

KEYS = [
    *("apiUrl", "apiKey", "flowerUrl", "flowerUser", "flowerPassword"),
    *("opsUrl", "opsUser", "opsPassword", "databaseUrl", "redisUrl"),
]
ROLES = {"postgres", "valkey", "flower", "api", "edits", "publish", "render", "bulk", "webhooks", "ops", "beat"}


class Up:
    """One data folder, and the stack that runs on it."""

    def __init__(self, folder, processes, *arguments, **environment):
        self.folder = folder
        self.arguments = arguments
        self.environment = environment
        self.processes = processes
        self.mark = f"mark-{uuid.uuid4()}"
        self.process = None

    def command(self, *arguments):
        return [sys.executable, "-m", "shared.cli.main", "up", f"--data-dir={self.folder}", *arguments]

    def start(self):
        ports = f"--port={free_port()}", f"--flower-port={free_port()}"
        self.process = self.processes.start(
            self.command(*ports, *self.arguments), TEST_MARK=self.mark, **self.environment
        )

    def ready(self):
        """What stack.json says, once it is there."""
        if self.process is None or not self.process.running:
            self.start()
        assert self.process is not None
        self.process.says("Redraft is up", within=30)
        return json.loads((self.folder / "stack.json").read_text())

    def children(self):
        """The pid of each child, by what its command line shows."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except psutil.Error:  # just gone
                continue
            queue = next((word.split("=")[1] for word in words if word.startswith("--queues=")), None)
            known = {"postgres": "postgres", "valkey-server": "valkey", "uvicorn": "api", "beat": "beat"}
            found[queue or next((known[name] for name in known if any(name in word for word in words)), "flower")] = (
                child.pid
            )
        return found

    def nothing_left(self):
        return marked(self.mark) == []


@pytest.fixture(scope="module")
def up():
    """A stack with demo data that the tests of this file share; a test may stop it, the next one starts it again."""
    started = Processes()
    with data_dir() as data:
        data.close()
        yield Up(data.path, started, "--demo")
        started.close()


@pytest.fixture
def bare(processes):
    """A stack of this test's own that is not started yet, without demo data."""
    with data_dir() as data:
        data.close()
        yield Up(data.path, processes)


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def connect(stack):
    return psycopg.connect(stack["databaseUrl"].replace("+psycopg", ""), autocommit=True)


def test_stack_json_says_where_everything_is_and_is_private(up):
    stack = up.ready()
    assert list(stack) == KEYS
    assert all(stack.values())
    assert stat.S_IMODE((up.folder / "stack.json").stat().st_mode) == 0o600
    assert get(f"{stack['apiUrl']}/readyz") == 200
    with connect(stack) as connection:
        assert connection.execute("SELECT count(*) FROM posts").fetchone() == (200,)
    with redis.Redis.from_url(stack["redisUrl"]) as client:
        assert client.ping()


def test_all_that_it_keeps_is_its_own_to_read(up):
    up.ready()
    open_to_others = {
        str(path.relative_to(up.folder)): oct(path.stat().st_mode)
        for path in up.folder.rglob("*")
        if path.exists() and path.stat().st_mode & 0o077
    }
    assert open_to_others == {}


def test_flower_wants_its_password(up):
    stack = up.ready()
    assert get(f"{stack['flowerUrl']}/workers") == 401
    login = stack["flowerUser"], stack["flowerPassword"]
    assert httpx.get(f"{stack['flowerUrl']}/workers", auth=login, timeout=5, **LOOPBACK).status_code == 200
    shown = " ".join(" ".join(psutil.Process(pid).cmdline()) for pid in up.children().values())
    assert stack["flowerPassword"] not in shown


def test_the_request_it_prints_works_as_it_stands(up):
    stack = up.ready()
    words = shlex.split(up.process.output().split("curl ", 1)[1].split("}'", 1)[0] + "}'")
    url = next(word for word in words if word.startswith("http"))
    headers = dict(word.split(": ", 1) for word in words if ": " in word and not word.startswith("{"))
    body = words[-1]
    tomorrow = datetime.now(ZoneInfo("America/New_York")).date() + timedelta(days=1)
    assert date.fromisoformat(json.loads(body)["scheduledTime"][:10]) == tomorrow
    assert headers["Authorization"] == f"Bearer {stack['apiKey']}"
    request = urllib.request.Request(url, body.encode(), headers, method="PATCH")
    with urllib.request.urlopen(request, timeout=15) as response:
        assert response.status == 200
        assert json.load(response)["caption"] == json.loads(body)["caption"]


def test_a_second_start_on_the_same_folder_says_so(up):
    up.ready()
    second = up.processes.start(up.command(f"--port={free_port()}", f"--flower-port={free_port()}"))
    assert second.wait(within=30) == 1
    assert f"already runs on {up.folder} (process {up.process.pid})" in second.output()
    assert up.process.running


def test_what_dies_is_started_again_servers_too(up):
    stack = up.ready()
    before = eventually(lambda: (now := up.children()).keys() == ROLES and now, within=30)
    for name in ("valkey", "postgres", "edits", "api"):
        os.kill(before[name], signal.SIGKILL)

    def replaced():
        now = up.children()
        return now.keys() == ROLES and all(now[name] != before[name] for name in ("valkey", "postgres", "edits", "api"))

    eventually(replaced, within=30)

    def well():
        try:
            with connect(stack), redis.Redis.from_url(stack["redisUrl"]) as client:
                return client.ping() and get(f"{stack['apiUrl']}/readyz") == 200
        except (OSError, psycopg.OperationalError, redis.RedisError):
            return False

    eventually(well, within=30)


def test_stopped_or_killed_it_leaves_nothing_and_finds_its_data_again(up):
    stack = up.ready()
    with connect(stack) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    assert up.process.stop(within=20) == 0
    assert up.nothing_left()
    assert not (up.folder / "stack.json").exists()

    again = up.ready()
    stays = ("databaseUrl", "redisUrl", "flowerPassword", "opsPassword")
    assert [again[key] for key in stays] == [stack[key] for key in stays]
    with connect(again) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    # The pool's children are what a killed stack leaves most easily.
    eventually(lambda: psutil.Process(up.children()["edits"]).children(), within=30)
    up.process.kill()
    eventually(up.nothing_left, within=30, because="nothing is left of a killed stack")


def test_your_own_servers_are_used_and_no_key_is_made_unasked(bare, database_url, redis_url):
    bare.environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
    stack = bare.ready()
    assert (stack["databaseUrl"], stack["redisUrl"], stack["apiKey"]) == (database_url, redis_url, None)
    assert "There is no API key yet" in bare.process.output()
    assert not {"postgres", "valkey"} & bare.children().keys()


def test_it_can_be_stopped_while_it_starts(bare):
    bare.start()
    bare.process.says("starting in", within=30)
    bare.process.signal(signal.SIGINT)
    assert bare.process.wait(within=30) == 0
    assert "Redraft is up" not in bare.process.output()
    assert bare.nothing_left()


@pytest.mark.parametrize("option", ["--port", "--flower-port"])
def test_a_port_in_use_is_said_at_once_with_what_to_do(bare, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = "--flower-port" if option == "--port" else "--port"
        process = bare.processes.start(bare.command(f"{option}={port}", f"{other}={free_port()}"))
        assert process.wait(within=30) == 1
    assert f"Port {port} is in use by another program. Choose another one with {option}" in process.output()


def test_data_of_another_postgresql_is_said_at_once_and_nothing_stays(bare):
    (bare.folder / "postgres").mkdir()
    (bare.folder / "postgres" / "PG_VERSION").write_text("16\n")
    bare.start()
    assert bare.process.wait(within=30) == 1
    assert "was made by PostgreSQL 16" in bare.process.output()
    assert "Traceback" not in bare.process.output()
    assert bare.nothing_left()
