"""An upgrade while the code of before works on: it loses nothing, waits for nobody long, and goes on afterwards."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, pool, text

import shared
from shared.local.postgres import PostgreSQL
from shared.settings import Settings
from shared.store import migrating
from tests import factories
from tests.processes import Processes
from tests.shared.cli.test_roles import REDRAFT
from tests.waiting import eventually

VERSIONS = sorted((Path(shared.__file__).parent / "store/migrations/versions").glob("0*.py"))
STEPS = [(before.name[:4], after.name[:4]) for before, after in pairwise(VERSIONS)]
PATIENCE = Settings().lock_timeout

# What has been one edit since the first tables, in the words of the version that first made one.
_RECORD = text("""
    INSERT INTO edits (id, post_id, workspace_id, changes, requested_by)
    VALUES (:edit, :post, 'ws_test', '{"caption": "new"}', 'tests')
""")
_LOCK = text("SELECT revision FROM posts WHERE id = :post FOR NO KEY UPDATE SKIP LOCKED")
_WRITE = text("UPDATE posts SET caption = :edit, revision = revision + 1 WHERE id = :post AND status = 'generated'")
_END = text("""
    UPDATE edits SET status = 'applied', finalized_at = clock_timestamp(), revision = :revision,
        before = '{}', after = '{}'
    WHERE id = :edit AND status = 'queued'
""")


@pytest.fixture
def url(postgres: PostgreSQL) -> Iterator[str]:
    """An empty database without any tables."""
    name = f"test_migrations_{next(factories.numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    options = f"-c lock_timeout={int(PATIENCE * 1000)}"
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"options": options})
    yield engine
    engine.dispose()


def made(engine: Engine, revision: str) -> str:
    """The tables of that revision, and a post."""
    migrating.migrate(engine.url.render_as_string(hide_password=False), revision)
    with engine.begin() as tx:
        factories.workspace(tx)
        return factories.post(tx)


def upgrade(engine: Engine, revision: str = "head") -> None:
    migrating.migrate(engine.url.render_as_string(hide_password=False), revision)


class OldCode:
    """A process of the version before: one edit after the other, each as it always was."""

    def __init__(self, engine: Engine, post: str) -> None:
        self.applied = 0
        self._engine, self._post = engine, post

    def edit(self) -> None:
        edit = {"edit": f"edit_old_{self.applied}", "post": self._post}
        with self._engine.begin() as tx:
            tx.execute(_RECORD, edit)
        with self._engine.begin() as tx:
            revision = tx.execute(_LOCK, edit).scalar_one() + 1
            assert tx.execute(_WRITE, edit).rowcount == 1
            assert tx.execute(_END, edit | {"revision": revision}).rowcount == 1
        self.applied += 1

    @contextmanager
    def working(self) -> Iterator["OldCode"]:
        """It works meanwhile, and never failed: not even for a lock that it could not get in time."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                self.edit()

        with ThreadPoolExecutor(1) as beside:
            worked = beside.submit(work)
            try:
                self.goes_on(worked)
                yield self
                self.goes_on(worked)
            finally:
                over.set()
            worked.result(timeout=10)

    def goes_on(self, worked: "Future[None] | None" = None, edits: int = 5) -> None:
        """So many more edits are made from now on."""
        aim = self.applied + edits
        eventually(lambda: self.applied >= aim or (worked is not None and worked.done()), within=30)


def revision_of(engine: Engine) -> str:
    with engine.connect() as tx:
        return str(tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def usable(tx: Connection, index: str = "ix_posts_failed") -> bool | None:
    """Of an index that is built while others write."""
    found = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:index)")
    return tx.execute(found, {"index": index}).scalar()


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_the_code_of_before_works_while_and_after_the_tables_change(engine: Engine, before: str, after: str) -> None:
    post = made(engine, before)
    with OldCode(engine, post).working() as old:
        upgrade(engine, after)
    assert revision_of(engine) == after
    with engine.connect() as tx:
        audit = "SELECT count(*), max(revision) FROM edits WHERE status = 'applied'"
        assert tx.execute(text(audit)).one() == (old.applied, old.applied + 1)


def test_a_migration_that_has_to_wait_lets_everybody_else_pass(engine: Engine) -> None:
    """Somebody reads posts and does not end: what waits for that table has all who come later wait behind it."""
    post = made(engine, "0001")
    waits = "SELECT count(*) FROM pg_locks WHERE relation = 'posts'::regclass AND mode = 'AccessExclusiveLock'"
    with ThreadPoolExecutor(1) as beside, engine.connect() as reader, OldCode(engine, post).working() as old:
        reader.execute(text("SELECT count(*) FROM posts"))
        migrating = beside.submit(upgrade, engine, "0002")
        for _ in range(2):
            # It asks, gives way, and asks again.
            for present in (1, 0):
                eventually(lambda present=present: rows_of(engine, waits) == present, within=30, every=0.005)
                assert not migrating.done()
        old.goes_on(edits=20)
        assert not migrating.done()
        reader.rollback()
        migrating.result(timeout=20)
    assert revision_of(engine) == "0002"


def rows_of(engine: Engine, question: str) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text(question)).scalar_one())


def test_two_that_migrate_at_once_do_it_once(engine: Engine, url: str, processes: Processes) -> None:
    made(engine, "0001")
    both = [processes.start([*REDRAFT, "migrate"], REDRAFT_DATABASE_URL=url) for _ in range(2)]
    assert [one.wait(within=40) for one in both] == [0, 0]
    with engine.connect() as tx:
        assert usable(tx)


@pytest.mark.parametrize(
    ("before", "index", "of"),
    [
        ("0003", "ix_posts_failed", "posts (failed_at)"),
        ("0009", "ix_edits_rejected", "edits (id)"),
        ("0009", "ix_edits_request", "edits (request_id)"),
        ("0009", "ix_reschedules_request", "reschedules (request_id)"),
        ("0010", "ix_webhook_events_open", "webhook_events (seq)"),
        ("0011", "ix_posts_schedule", "posts (id)"),
    ],
)
def test_an_index_whose_building_was_interrupted_is_built_anew(
    engine: Engine, before: str, index: str, of: str
) -> None:
    made(engine, before)
    with engine.begin() as tx:
        tx.execute(text(f"CREATE INDEX {index} ON {of}"))
        tx.execute(text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"))
    upgrade(engine)
    with engine.connect() as tx:
        assert usable(tx, index)


def test_the_log_of_webhooks_begins_anew_where_it_was_interrupted(engine: Engine) -> None:
    """The column and the index are there, each committed by itself; the index may be usable or not."""
    made(engine, "0010")
    upgrade(engine, "0011")
    index = "SELECT oid, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname = :name"
    given = {"name": "ix_webhook_events_open"}
    for valid in (True, False):
        with engine.begin() as tx:
            before = tx.execute(text(index), given).one()
            tx.execute(text("DROP TABLE webhook_tries"))
            tx.execute(text("UPDATE alembic_version SET version_num = '0010'"))
            tx.execute(
                text("UPDATE pg_index SET indisvalid = :valid WHERE indexrelid = :oid"),
                {"valid": valid, "oid": before[0]},
            )
        upgrade(engine, "0011")
        with engine.connect() as tx:
            after = tx.execute(text(index), given).one()
        assert after.indisvalid
        assert (after.oid == before.oid) == valid


def test_an_index_that_an_earlier_form_of_the_migrations_made_is_left_alone(engine: Engine) -> None:
    made(engine, "0003")
    which = "SELECT 'ix_posts_failed'::regclass::oid"
    with engine.begin() as tx:
        tx.execute(
            text(
                "CREATE INDEX ix_posts_failed ON posts (failed_at DESC) WHERE status = 'failed' AND deleted_at IS NULL"
            )
        )
        before = tx.execute(text(which)).scalar_one()
    upgrade(engine)
    with engine.connect() as tx:
        assert tx.execute(text(which)).scalar_one() == before


@pytest.mark.parametrize("path", VERSIONS[1:], ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    """What the code of before reads and writes stays as it is; an index on a table with rows is built beside them."""
    said = path.read_text()
    assert not re.search(r"DROP (TABLE|COLUMN|CONSTRAINT)|RENAME|ALTER COLUMN|TRUNCATE|SET NOT NULL", said)
    new = set(re.findall(r"CREATE TABLE (\w+)", said))
    for concurrently, table in re.findall(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?\w+ ON (\w+)", said):
        assert concurrently or table in new, f"{table} has rows already"
    for column in re.findall(r"ADD COLUMN ([^\n]+)", said):
        assert "NOT NULL" not in column or "DEFAULT" in column


def test_each_migration_follows_the_one_before() -> None:
    assert list(reversed(migrating.known())) == [path.name[:4] for path in VERSIONS]
