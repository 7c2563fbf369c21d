"""The single roles, as production starts them."""

import os
import re
import signal
import stat
import sys
import urllib.error
import urllib.request
import uuid

import psutil
import psycopg
import pytest
from celery import Celery

from tests.ports import free_port
from tests.processes import marked
from tests.waiting import eventually

REDRAFT = [sys.executable, "-m", "shared.cli.main"]


@pytest.fixture
def servers(database_url, redis_url):
    return {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}


def test_a_worker_of_several_queues_keeps_a_process_for_each(processes, servers):
    mark = f"mark-{uuid.uuid4()}"
    worker = processes.start([*REDRAFT, "worker", "--queues=ops, webhooks"], TEST_MARK=mark, **servers)
    worker.says("ops@", within=30)

    def of(queue):
        return [
            child.pid
            for child in psutil.Process(worker.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE and f"--queues={queue}" in child.cmdline()
        ]

    eventually(lambda: len(of("ops")) == len(of("webhooks")) == 1, within=30)
    (before,) = of("ops")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: of("ops") not in ([], [before]), within=30)
    assert worker.stop(within=20) == 0
    assert marked(mark) == []


def test_a_worker_of_one_queue_is_that_process(processes, servers):
    worker = processes.start([*REDRAFT, "worker", "--queues=webhooks", "--name=here"], **servers)
    eventually(lambda: "celery" in psutil.Process(worker.pid).cmdline(), within=30)
    assert "--hostname=webhooks@here" in psutil.Process(worker.pid).cmdline()


def test_a_pool_dies_with_its_killed_worker_even_while_it_is_busy(processes, servers):
    """Celery sees to it; we rely on it for a killed `redraft up` that leaves nothing."""
    worker = processes.start("worker", "ops", "--include=tests.shared.cli.busy", **servers)
    with Celery(broker=servers["REDRAFT_REDIS_URL"], set_as_current=False) as sender:
        sender.send_task("tests.busy", queue="ops")
    worker.says("I am busy", within=30)
    (member,) = worker.tree()
    worker.kill()
    eventually(lambda: not psutil.pid_exists(member) or psutil.Process(member).status() == "zombie", within=30)


def test_an_unknown_queue_is_refused_with_those_there_are(processes):
    worker = processes.start([*REDRAFT, "worker", "--queues=edits,nope"], COLUMNS="200")
    assert worker.wait(within=30) == 2
    assert "nope: there are only edits, bulk, ops, publish, render, webhooks." in worker.output()


@pytest.mark.parametrize("role", ["api", "worker", "beat", "flower", "migrate"])
def test_a_role_that_does_not_know_its_servers_says_what_to_set(processes, role):
    started = processes.start([*REDRAFT, role])
    assert started.wait(within=30) == 2
    assert re.search(r"Set REDRAFT_(DATABASE|REDIS)_URL", started.output())


def test_migrate_makes_the_tables(processes, postgres):
    url = postgres.create_database("bare")
    migrate = processes.start([*REDRAFT, "migrate"], REDRAFT_DATABASE_URL=url)
    assert migrate.wait(within=30) == 0
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM posts").fetchone() == (0,)
    postgres.drop_database("bare")


def test_a_migration_without_its_database_is_one_line(processes, postgres):
    bare = f"postgresql+psycopg://redraft:secret@127.0.0.1:{postgres.port}/redraft"
    several = "postgresql+psycopg://redraft:secret@/redraft?host=127.0.0.1:1&host=127.0.0.1:2"
    for url, said in (
        (bare, "password authentication failed"),
        (bare.replace(str(postgres.port), "1"), "refused"),
        (several, "127.0.0.1:1 and 127.0.0.1:2"),
    ):
        migrate = processes.start([*REDRAFT, "migrate"], REDRAFT_DATABASE_URL=url)
        assert migrate.wait(within=30) == 1
        [line] = migrate.output().splitlines()
        assert line.startswith("PostgreSQL at 127.0.0.1:")
        assert said in line
        assert "secret" not in line
    wrong = processes.start([*REDRAFT, "migrate"], REDRAFT_DATABASE_URL="mysql://redraft:secret@127.0.0.1/redraft")
    assert wrong.wait(within=30) == 2
    assert len(wrong.output().splitlines()) == 1
    assert "secret" not in wrong.output()


def test_flower_is_never_open_even_if_nobody_chose_a_password(processes, servers, tmp_path):
    port = free_port()
    flower = processes.start([*REDRAFT, "flower", f"--port={port}", f"--data-dir={tmp_path}"], **servers)
    flower.says("Flower: user flower, password ", within=30)

    def status():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    assert eventually(status, within=30) == 401


def test_flower_keeps_its_history_to_itself(processes, servers, tmp_path):
    """It reads it back by pickle: who may write it may run what he likes."""
    history = tmp_path / "history"
    flower = processes.start([*REDRAFT, "flower", f"--port={free_port()}", f"--data-dir={history}"], **servers)
    flower.says("Flower: user flower, password ", within=30)
    # It saves at its end, once it listens.
    eventually(lambda: psutil.Process(flower.pid).net_connections("tcp"), within=30)
    flower.stop(within=20)
    files = list(history.iterdir())
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in [*files, history]} == {0o600, 0o700}
