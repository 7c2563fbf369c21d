"""A backup that was made while edits came in is whole, and workers go on from it: docs/deployment.md."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.processes import CHEAP, Processes, Server, data_dir
from tests.stack import running
from tests.waiting import eventually

POSTS, BEFORE = 5, 40
Restored = AbstractContextManager[str]
"""The URL of the database that a backup has become."""


def tool(server: PostgreSQL, name: str, *arguments: str) -> None:
    """One of PostgreSQL's own client programs."""
    said = subprocess.run(
        [server._binaries / name, "--host=127.0.0.1", f"--port={server.port}", "--username=redraft", *arguments],
        env={**os.environ, "PGPASSWORD": server.password}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr


@contextmanager
def from_dump(server: PostgreSQL, source: str, folder: Path, meanwhile: Callable[[], None]) -> Iterator[str]:
    tool(server, "pg_dump", "--format=custom", f"--file={folder / 'redraft.dump'}", source)
    meanwhile()
    url = server.create_database(f"{source}_back")
    tool(server, "pg_restore", f"--dbname={source}_back", "--exit-on-error", str(folder / "redraft.dump"))
    yield url
    server.drop_database(f"{source}_back")


@contextmanager
def from_base_backup(server: PostgreSQL, source: str, _: Path, meanwhile: Callable[[], None]) -> Iterator[str]:
    with data_dir() as data:
        data.keep("postgresPassword", server.password)
        tool(server, "pg_basebackup", f"--pgdata={data.path / 'postgres'}", "--checkpoint=fast", "--wal-method=stream")
        meanwhile()
        another = Server(PostgreSQL(data, settings=CHEAP))
        another.start()
        try:
            yield server.url(source).replace(f":{server.port}/", f":{another.server.port}/")
        finally:
            another.close()


def statuses(engine: Engine) -> dict[str, int]:
    with engine.connect() as tx:
        found = tx.execute(text("SELECT status, count(*) FROM edits GROUP BY 1"))
        return {row[0]: row[1] for row in found}


def assert_whole(engine: Engine) -> None:
    """Each post is as its applied edits made it: one revision for each, and the caption of the last."""
    with engine.connect() as tx:
        rows = tx.execute(
            text("""
            SELECT p.id, p.revision, p.caption, count(e.id) AS applied, max(e.revision) AS last,
                (array_agg(e.changes ->> 'caption' ORDER BY e.revision DESC))[1] AS caption_of_last
            FROM posts p JOIN edits e ON e.post_id = p.id AND e.status = 'applied' GROUP BY p.id""")
        ).all()
    assert rows
    for row in rows:
        assert (row.revision, row.caption) == (row.last, row.caption_of_last), row
        assert row.revision == 1 + row.applied, row


@pytest.mark.parametrize("backup", [from_dump, from_base_backup], ids=["pg_dump", "pg_basebackup"])
def test_a_backup_under_load_is_whole_and_its_queue_is_applied(
    backup: Callable[..., Restored], postgres: PostgreSQL, valkey: Valkey, tmp_path: Path
) -> None:
    name = f"backup_{backup.__name__}"
    url, cache = postgres.create_database(name, template=TEMPLATE), empty_database(valkey)
    numbers, enough = count(), threading.Event()
    with running(url, cache, "edits") as stack:
        posts = [stack.post() for _ in range(POSTS)]

        def write_on() -> None:
            while not enough.is_set():
                number = next(numbers)
                stack.patch(posts[number % POSTS], {"caption": f"number {number}"}, Prefer="respond-async")

        def stop() -> None:
            enough.set()
            writer.join()

        writer = threading.Thread(target=write_on)
        writer.start()
        eventually(lambda: statuses(stack.engine).get("applied", 0) > BEFORE, within=30)
        # From here on edits stay in the queue, so that every backup has some.
        stack.workers["edits"].stop(within=30)
        eventually(lambda: statuses(stack.engine).get("queued", 0) > POSTS, within=30)
        with backup(postgres, name, tmp_path, stop) as restored:
            stack.processes.close()
            go_on(restored, empty_database(valkey))
    postgres.drop_database(name)


def go_on(url: str, cache: str) -> None:
    """Workers and rescue on the restored database, with a Redis that knows nothing of it."""
    engine, processes = factories.own_engine(url), Processes()
    try:
        assert statuses(engine)["queued"] > 0
        assert_whole(engine)
        servers = {"REDRAFT_DATABASE_URL": url, "REDRAFT_REDIS_URL": cache}
        for queue in ("edits", "ops"):
            processes.start("worker", queue, **servers)
        processes.start("beat", **servers)
        eventually(lambda: set(statuses(engine)) == {"applied"}, within=60, because="rescue rings for what was queued")
        assert_whole(engine)
    except BaseException:
        print(processes.report())
        raise
    finally:
        processes.close()
        engine.dispose()
