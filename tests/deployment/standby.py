"""A streaming standby of a test's own PostgreSQL, and the URL by which both are one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from shared.local.postgres import PostgreSQL
from tests.processes import CHEAP, Server, data_dir
from tests.waiting import eventually

NAME = "standby"


def admin_of(server: Server) -> psycopg.Connection:
    """A superuser's connection to it; use it as a context."""
    assert isinstance(server.server, PostgreSQL)
    return psycopg.connect(server.server._dsn("postgres"), autocommit=True)


def cut_off(primary: Server, standby: Server) -> None:
    """The standby gets all that the primary has committed so far, and nothing from then on."""
    with admin_of(primary) as first, admin_of(standby) as second:
        [written] = first.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or [None]
        replayed = "SELECT 1 WHERE pg_last_wal_replay_lsn() >= %s::pg_lsn"
        eventually(lambda: second.execute(replayed, [written]).fetchone(), within=30, because="the standby is level")
        second.execute("ALTER SYSTEM SET primary_conninfo = ''")
        second.execute("SELECT pg_reload_conf()")
        receiver = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"
        eventually(lambda: second.execute(receiver).fetchone(), within=30, because="nothing is received")


def promote(standby: Server) -> None:
    with admin_of(standby) as admin:
        admin.execute("SELECT pg_promote()")


@contextmanager
def standby_of(primary: Server, *, synchronous: bool) -> Iterator[Server]:
    """A streaming standby with the same users and databases. `synchronous`: each commit of the primary waits for it."""
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
        with admin_of(primary) as admin:
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME if synchronous else ''}'")
            admin.execute("SELECT pg_reload_conf()")
            state = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s"
            wanted = ["sync" if synchronous else "async"]
            eventually(lambda: admin.execute(state, wanted).fetchone(), within=30, because="the standby follows")
        try:
            yield standby
        finally:
            standby.close()


def both(one: Server, other: Server) -> str:
    """A URL that names two servers, and means the one that takes writes."""
    user, _, rest = one.url.rpartition("@")
    hosts = "&".join(f"host=127.0.0.1:{server.server.port}" for server in (one, other))
    return f"{user}@/{rest.partition('/')[2]}?{hosts}&target_session_attrs=read-write"
