"""The embedded servers: first and later starts, data that survives, and clear words when they cannot start."""

import os
import re
import signal
import socket
import stat
import sys
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.local import binaries, commands
from shared.local.datadir import DataDir
from shared.local.errors import LocalError
from shared.local.postgres import FOR_TESTS_ONLY, PostgreSQL
from shared.local.valkey import Valkey
from shared.task_names import QUEUES
from tests.processes import Server, data_dir
from tests.waiting import eventually


@pytest.fixture
def folder():
    with data_dir() as data:
        yield data


@pytest.fixture
def opened():
    """Opens data folders for this test."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(DataDir.open(path)))


@pytest.fixture
def serve():
    """Runs a server for this test."""
    started = []

    def start(server):
        running = Server(server)
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        running.close()


def connect(url):
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_every_queue_has_a_pool():
    assert set(commands.POOLS) == set(QUEUES)


def test_postgresql_keeps_what_was_committed_when_it_is_killed(folder, serve, opened):
    server = PostgreSQL(folder)
    running = serve(server)
    url = server.create_database()
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    running.process.kill()
    folder.close()
    again = PostgreSQL(opened(folder.path))
    assert again.url() == url, "a later start has the same port and password"
    serve(again)
    with connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_postgresql_sorts_alike_everywhere_and_speaks_utc(postgres):
    with connect(postgres.url("postgres")) as connection:
        ordered = connection.execute("SELECT x FROM unnest(ARRAY['b', 'B', 'a', 'é']) x ORDER BY x").fetchall()
        assert "".join(row[0] for row in ordered) == "Babé"
        assert connection.execute("SELECT upper('é')").fetchone() == ("É",), "it knows more than ASCII"
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_postgresql_asks_for_its_password_and_hides_it_from_process_lists(postgres):
    wrong: dict[str, Any] = conninfo_to_dict(postgres.url("postgres").replace("+psycopg", ""), password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**wrong)
    assert postgres.password not in " ".join(postgres.child().command())


def test_each_test_has_a_database_of_its_own(database_url, postgres):
    with connect(database_url) as connection:
        tables = {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert {"posts", "edits"} <= tables
    assert postgres.create_database("second", template="template_redraft") != database_url
    postgres.drop_database("second")


def test_data_of_another_major_version_is_refused_with_what_to_do(folder):
    server = PostgreSQL(folder, settings=FOR_TESTS_ONLY)
    server.prepare()
    (server.folder / "PG_VERSION").write_text("16\n")
    with pytest.raises(LocalError, match=r"was made by PostgreSQL 16, this is PostgreSQL 18.*move the folder away"):
        PostgreSQL(folder).prepare()


def test_a_first_start_that_was_killed_half_way_starts_afresh(folder, serve):
    half = folder.path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    serve(PostgreSQL(folder, settings=FOR_TESTS_ONLY))
    assert not half.exists()


def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(folder, serve):
    """In a container pids start afresh: the number of a dead server soon belongs to somebody else."""
    server = PostgreSQL(folder, settings=FOR_TESTS_ONLY)
    server.prepare()
    (server.folder / "postmaster.pid").write_text(f"{os.getppid()}\n{server.folder}\n")
    assert serve(server).process.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_postgresql_runs_for_root_whatever_the_system_allows(number, folder, serve, opened, monkeypatch):
    identities = binaries.identities()
    if number >= len(identities):
        pytest.skip("this system has fewer ways")
    inside = folder.path / "inside"
    inside.mkdir(mode=0o711)
    # Closed to strangers, which only the first way needs open.
    folder.path.chmod(0o711 if number == 0 else 0o700)
    monkeypatch.setattr(binaries, "identities", lambda: [identities[number]])
    server = PostgreSQL(opened(inside), settings=FOR_TESTS_ONLY)
    try:
        running = serve(server)
    except LocalError as error:
        pytest.skip(f"not allowed here: {error}")
    assert server.answers()
    running.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_is_told_what_to_do_when_nothing_works(folder, monkeypatch):
    monkeypatch.setattr(binaries, "identities", lambda: ["user:65534:65534"])
    folder.path.chmod(0o700)
    with pytest.raises(LocalError, match=r"chmod o\+x"):
        PostgreSQL(folder).prepare()


def test_valkey_keeps_its_data_when_it_is_killed_and_evicts_nothing(own_valkey):
    with redis.Redis.from_url(own_valkey.url) as client:
        client.set("doorbell", "rung")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    own_valkey.process.kill()
    own_valkey.start()
    with redis.Redis.from_url(own_valkey.url) as client:
        assert client.get("doorbell") == b"rung"


def test_valkey_asks_for_its_password_and_hides_it_from_process_lists(valkey):
    with (
        redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert valkey.password not in " ".join(valkey.child().command())
    assert stat.S_IMODE((valkey.data.path / "valkey.conf").stat().st_mode) == 0o600


def test_each_test_has_an_empty_redis(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_frozen_server_thaws(own_valkey):
    own_valkey.process.freeze()
    with redis.Redis.from_url(own_valkey.url, socket_timeout=0.2) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        own_valkey.process.thaw()
        assert client.ping()
    own_valkey.stop()
    assert own_valkey.process.returncode == 0


def test_servers_are_sought_in_the_wheels_first_then_on_path(tmp_path):
    for name in ("postgres", "initdb", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    nowhere = tmp_path / "nowhere"
    assert binaries.postgres_folder([lambda: None, lambda: nowhere, lambda: tmp_path]) == tmp_path
    assert binaries.valkey_server([("valkey-server", lambda: tmp_path), ("redis-server", lambda: tmp_path)]) == (
        tmp_path / "redis-server"
    )
    with pytest.raises(LocalError, match="REDRAFT_DATABASE_URL"):
        binaries.postgres_folder([lambda: nowhere])
    with pytest.raises(LocalError, match="REDRAFT_REDIS_URL"):
        binaries.valkey_server([])


def test_a_data_folder_has_one_holder_at_a_time(folder):
    with pytest.raises(LocalError, match=rf"already runs on .*process {os.getpid()}"):
        DataDir.open(folder.path)
    folder.close()
    DataDir.open(folder.path).close()


def test_passwords_and_ports_stay_and_are_private(folder):
    assert folder.secret("a") == folder.secret("a") != folder.secret("b")
    assert stat.S_IMODE((folder.path / "kept.json").stat().st_mode) == 0o600
    port = folder.port("valkeyPort")
    assert folder.port("valkeyPort") == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert Valkey(folder).port != port, "somebody else's port is left to them"


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="not a folder"):
        DataDir.open(tmp_path / "file")


def test_a_killed_pytest_leaves_no_server(processes, tmp_path):
    """What conftest.py starts dies with pytest, by the same means as this."""
    script = (
        "import time; from tests import processes\n"
        "with processes.valkey() as server: print('pid', server.process.pid, flush=True); time.sleep(600)"
    )
    run = processes.start([sys.executable, "-c", script], TMPDIR=str(tmp_path))
    # Both words: they are written one after the other.
    eventually(lambda: re.search(r"pid \d+\n", run.output()), within=30)
    server = int(run.output().split()[1])
    run.signal(signal.SIGKILL)

    def gone():
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(gone, within=30)
