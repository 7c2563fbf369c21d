"""All roles through a real PgBouncer in transaction mode: `make pgbouncer`.

Needs `pgbouncer` 1.22 or newer on PATH (Debian 13: apt-get install pgbouncer). So `make test` leaves it out, by its
name. tests/shared/store/test_session_settings.py has what can be tested without one.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from shared.cli import findings, probes
from shared.local.postgres import USER, PostgreSQL
from shared.local.valkey import Valkey
from shared.settings import settings
from shared.store import db, session_settings
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.docs.pages import blocks
from tests.ports import free_port
from tests.processes import Process, Processes
from tests.stack import Running, running
from tests.waiting import eventually

PGBOUNCER = shutil.which("pgbouncer") or "pgbouncer"
QUEUES = ("edits", "publish", "bulk", "ops", "webhooks", "render")
CLIENTS = 16


class Pooler:
    """A PgBouncer before that database, set up as docs/deployment.md says, but for ports, users and `more`."""

    def __init__(self, postgres: PostgreSQL, database: str, folder: Path, **more: str) -> None:
        self.processes = Processes()
        self.port = free_port()
        self.url = postgres.url(database).replace(f":{postgres.port}/", f":{self.port}/")
        (block,) = [block for block in blocks("docs/deployment.md") if block.info == "ini"]
        text, hosts = re.subn(
            r"host=\S+ port=\d+ dbname=redraft", f"host=127.0.0.1 port={postgres.port} dbname={database}", block.text
        )
        text = text.replace("\nredraft = ", f"\n{database} = ").replace("/etc/pgbouncer", str(folder))
        given = {"listen_addr": "127.0.0.1", "listen_port": str(self.port), "unix_socket_dir": "", **more}
        for name, value in given.items():
            line = f"{name} = {value}"
            text, found = re.subn(rf"^{name} = .*$", line, text, flags=re.MULTILINE)
            text += "" if found else f"\n{line}\n"
        assert hosts == 1
        folder.mkdir()
        (folder / "pgbouncer.ini").write_text(text)
        (folder / "userlist.txt").write_text(f'"{USER}" "{postgres.password}"\n')
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        self._folder = folder
        self.process = self.start()

    def start(self) -> Process:
        identity = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = self.processes.start([PGBOUNCER, *identity, str(self._folder / "pgbouncer.ini")])
        process.says("listening on 127.0.0.1", within=10)
        return process

    def turn_to(self, port: int) -> None:
        """The database is that of another server from now on: a new line in the file, and a reload."""
        file = self._folder / "pgbouncer.ini"
        file.write_text(re.sub(r"(?m)^(\S+ = host=127.0.0.1 port=)\d+", rf"\g<1>{port}", file.read_text()))
        self.process.signal(signal.SIGHUP)

    def restart(self) -> None:
        self.process.kill()
        self.process = self.start()


@contextmanager
def pooler(postgres: PostgreSQL, database: str, folder: Path, **more: str) -> Iterator[Pooler]:
    made = Pooler(postgres, database, folder, **more)
    try:
        yield made
    except BaseException:
        print(made.processes.report())
        raise
    finally:
        made.processes.close()


@pytest.fixture(scope="module")
def direct_url(postgres: PostgreSQL) -> Iterator[str]:
    yield postgres.create_database("pooled", template=TEMPLATE)
    postgres.drop_database("pooled")


@pytest.fixture(scope="module")
def bouncer(postgres: PostgreSQL, direct_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    with pooler(postgres, "pooled", tmp_path_factory.mktemp("pooler") / "etc") as made:
        made._folder.parent.chmod(0o755)
        yield made


@pytest.fixture(scope="module")
def stack(bouncer: Pooler, direct_url: str, redis: str) -> Iterator[Running]:
    more = {"REDRAFT_DATABASE_DIRECT_URL": direct_url, "REDRAFT_API_PROCESSES": "1"}
    with running(bouncer.url, redis, *QUEUES, **more) as stack:
        stack.start_beat()
        yield stack


@pytest.fixture(scope="module")
def redis(valkey: Valkey) -> str:
    return empty_database(valkey)


def at_once(stack: Running, ask: Callable[[int], httpx.Response], number: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(ask, range(number)))


def test_edits_of_many_clients_are_applied(stack: Running) -> None:
    posts = [stack.post() for _ in range(40)]
    answers = at_once(stack, lambda n: stack.patch(posts[n % 40], {"caption": f"number {n}"}), 800)
    assert {answer.status_code for answer in answers} == {200}
    keys: list[dict[str, str]] = [{"Idempotency-Key": f"key-{n}"} for n in range(80)]
    answers = at_once(stack, lambda n: stack.patch(posts[n % 40], {"caption": f"with key {n}"}, **keys[n]), 80)
    assert {answer.status_code for answer in answers} == {200}


def test_posts_go_out_and_jobs_move_posts(stack: Running) -> None:
    due, later = stack.post(scheduled_time=factories.soon(0)), [stack.post() for _ in range(30)]
    job = stack.http.post("/v1/reschedules", json={"filter": {"postIds": later}, "shift": "P1D"}).json()

    def moved() -> bool:
        shown = stack.http.get(f"/v1/reschedules/{job['id']}").json()
        return (shown["status"], shown["applied"]) == ("done", 30)

    eventually(moved, within=30, because="the job runs")
    eventually(lambda: stack.row("posts", due).status == "posted", within=30, because="it goes out")


def test_nothing_is_left_on_a_session_for_its_next_user(stack: Running, bouncer: Pooler) -> None:
    stack.patch(stack.post(), {"caption": "set and gone"})
    with psycopg.connect(bouncer.url.replace("+psycopg", ""), autocommit=True) as other:
        for name in ("lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
            assert other.execute("SELECT current_setting(%s)", [name]).fetchone() == ("0",)


def test_the_doctor_finds_every_setting(stack: Running, bouncer: Pooler, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    factories.forget_caches()
    facts = probes.examine(bouncer.url)
    assert facts.database is not None
    assert facts.database.unset == {}
    assert not facts.unreachable
    codes = {one.code for one in findings.diagnose(facts)}
    assert codes <= {"redis_persistence"}, codes
    factories.forget_caches()


def test_after_a_restart_of_the_pooler_edits_are_applied(stack: Running, bouncer: Pooler) -> None:
    post = stack.post()
    bouncer.restart()

    def edited() -> bool:
        answer = stack.patch(post, {"caption": "again"})
        assert answer.status_code in (200, 202, 503), answer.text
        return answer.status_code == 200

    eventually(edited, within=30, because="all connect again")


def test_a_migration_goes_past_the_pooler_and_leaves_no_lock(stack: Running, direct_url: str) -> None:
    migrate = stack.processes.start([sys.executable, "-m", "shared.cli.main", "migrate"], **stack.environment)
    assert migrate.wait(within=30) == 0, migrate.output()
    with psycopg.connect(direct_url.replace("+psycopg", ""), autocommit=True) as other:
        assert other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_without_the_direct_url_a_pooler_refuses_or_the_doctor_tells(
    postgres: PostgreSQL, direct_url: str, bouncer: Pooler, tmp_path: Path
) -> None:
    engine = db.make_engine(bouncer.url, settings(), pool_size=1)
    with pytest.raises(OperationalError, match="unsupported startup parameter"), db.transaction(engine):
        pass
    engine.dispose()
    tmp_path.chmod(0o755)
    with pooler(postgres, "pooled", tmp_path / "etc", ignore_startup_parameters="options") as deaf:
        engine = db.make_engine(deaf.url, settings(), pool_size=1)
        with db.transaction(engine) as tx:
            assert session_settings.missing(tx, settings())["transaction_timeout"] == ("15000", "0")
        engine.dispose()
