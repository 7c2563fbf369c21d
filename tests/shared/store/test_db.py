"""One engine for a process, whoever asks first and whatever was forked meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.store import db
from tests import factories
from tests.processes import ROOT

TOGETHER = 8


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


@pytest.mark.parametrize("which", ["engine", "_autocommit_relaxed"])
def test_threads_that_ask_first_at_once_get_the_same_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    make, makers, made = db.make_engine, threading.Barrier(2), []

    def slow(*given: Any, **options: Any) -> Engine:
        # Two that are here together pass at once; one that is alone waits in vain for a second.
        with suppress(threading.BrokenBarrierError):
            makers.wait(0.5)
        made.append(make(*given, **options))
        return made[-1]

    monkeypatch.setattr(db, "make_engine", slow)
    begin = threading.Barrier(TOGETHER)

    def ask(_: int) -> Engine:
        begin.wait(10)
        asked: Engine = getattr(db, which)()
        return asked

    with ThreadPoolExecutor(TOGETHER) as threads:
        got = list(threads.map(ask, range(TOGETHER)))
    assert len(made) == 1
    assert all(one is made[0] for one in got)


def test_a_database_that_takes_no_writes_for_now_says_nothing_about_the_work(engine: Engine) -> None:
    """A demoted primary, or a hosted database whose disk is full: SQLSTATE 25006."""
    with pytest.raises(DBAPIError) as refused, db.transaction() as tx:
        tx.execute(text("SET TRANSACTION READ ONLY; UPDATE posts SET caption = 'x'"))
    assert db.read_only(refused.value)
    assert db.is_transient(refused.value)
    with pytest.raises(DBAPIError) as wrong, db.transaction() as tx:
        tx.execute(text("SELECT 1 / 0"))
    assert not db.read_only(wrong.value)
    assert not db.is_transient(wrong.value)


FORKED = """
import os, sys, threading
from sqlalchemy import text
from shared.store import db

def backend():
    with db.transaction() as tx:
        return tx.execute(text("SELECT pg_backend_pid()")).scalar()

mine, ours = db.engine(), backend()
# A thread that is just making an engine while the process forks: no child may wait for it for ever.
making, forked, make = threading.Event(), threading.Event(), db.make_engine
def slow(*given, **options):
    making.set()
    forked.wait(0.5)
    return make(*given, **options)
db.make_engine = slow
thread = threading.Thread(target=db._autocommit_relaxed)
thread.start()
making.wait()
child = os.fork()
if not child:
    db.make_engine = make
    own = db.engine() is not mine and backend() != ours
    with db.autocommit_relaxed():
        pass
    os._exit(0 if own else 3)
forked.set()
thread.join()
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(ended or (0 if backend() == ours and db.engine() is mine else 4))
"""


def test_a_forked_child_makes_an_engine_of_its_own_and_leaves_its_parents_alone(
    engine: Engine, database_url: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-Wignore", "-c", FORKED],
        env={"REDRAFT_DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
