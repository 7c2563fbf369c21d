"""The primary is killed under load and its synchronous standby is promoted: no accepted edit is lost."""

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.store import prerequisites
from tests.conftest import LOGICAL_DATABASES
from tests.processes import CHEAP, Processes, Server, data_dir
from tests.stack import Running
from tests.waiting import eventually

WRITERS = 4
NAME = "standby"


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A streaming standby that every commit of the primary waits for, with the same users and databases."""
    first = primary.server
    assert isinstance(first, PostgreSQL)
    with data_dir() as data:
        data.keep("postgresPassword", first.password)
        login = f"host=127.0.0.1 port={first.port} user=redraft application_name={NAME}"
        made = subprocess.run(
            [first._binaries / "pg_basebackup", f"--pgdata={data.path / 'postgres'}", f"--dbname={login}",
             "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"],
            env={**os.environ, "PGPASSWORD": first.password}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        standby = Server(PostgreSQL(data, settings=CHEAP))
        standby.start()
        with psycopg.connect(first._dsn("postgres"), autocommit=True) as admin:
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
            admin.execute("SELECT pg_reload_conf()")
            waits = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            eventually(lambda: admin.execute(waits).fetchone(), within=30, because="commits wait for the standby")
        try:
            yield standby
        finally:
            standby.close()


def both(one: Server, other: Server) -> str:
    """A URL that names two servers, and means the one that takes writes."""
    user, _, rest = one.url.rpartition("@")
    hosts = "&".join(f"host=127.0.0.1:{server.server.port}" for server in (one, other))
    return f"{user}@/{rest.partition('/')[2]}?{hosts}&target_session_attrs=read-write"


@pytest.fixture
def servers(own_postgres: Server) -> Iterator[tuple[Server, Server]]:
    with standby_of(own_postgres) as standby:
        yield own_postgres, standby


def test_every_edit_that_was_answered_is_applied_once(servers: tuple[Server, Server], valkey: Valkey) -> None:
    primary, standby = servers
    url, processes = both(primary, standby), Processes()
    assert prerequisites.postgresql_version(url) is not None
    stack = Running(processes, url, valkey.url(LOGICAL_DATABASES - 137))
    accepted: list[str] = []
    said, ended = Counter[int](), threading.Event()
    try:
        stack.start_worker("edits")
        stack.start_worker("ops")
        stack.start_beat()
        stack.start_api()
        posts = [stack.post() for _ in range(WRITERS)]

        def write_on(post: str) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                answer = stack.patch(post, {"caption": f"number {number}"}, Prefer="wait=1")
                said[answer.status_code] += 1
                if answer.status_code in (200, 202):
                    accepted.append(answer.headers["edit-id"])

        writers = [threading.Thread(target=write_on, args=[post]) for post in posts]
        for writer in writers:
            writer.start()
        eventually(lambda: said[200] > 50, within=30)
        primary.process.kill_tree()
        eventually(lambda: said[503] > 0, within=30, because="nobody takes writes")
        promoted = standby.server
        assert isinstance(promoted, PostgreSQL)
        with psycopg.connect(promoted._dsn("postgres"), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        before = said[200]
        eventually(lambda: said[200] > before + 50, within=60, because="all processes find the new primary")
        ended.set()
        for writer in writers:
            writer.join()
        assert set(said) <= {200, 202, 503}, said
        assert_applied_once(stack, accepted)
    except BaseException:
        print(processes.report(), said)
        raise
    finally:
        ended.set()
        stack.close()
        processes.close()


def assert_applied_once(stack: Running, accepted: list[str]) -> None:
    def queued() -> int:
        with stack.engine.connect() as tx:
            return int(tx.execute(text("SELECT count(*) FROM edits WHERE status = 'queued'")).scalar_one())

    eventually(lambda: queued() == 0, within=60, because="rescue rings for what was queued")
    with stack.engine.connect() as tx:
        found = tx.execute(text("SELECT id, status FROM edits")).all()
        posts = tx.execute(
            text("""SELECT p.revision - 1 AS revisions, count(e.id) AS edits, count(DISTINCT e.revision) AS own
                    FROM posts p JOIN edits e ON e.post_id = p.id AND e.status = 'applied' GROUP BY p.id, p.revision""")
        ).all()
    assert set(accepted) <= {row.id for row in found if row.status == "applied"}
    for post in posts:
        assert post.revisions == post.edits == post.own
    assert len(posts) == WRITERS
