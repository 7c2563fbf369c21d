"""What a process made while it started is looked at by no collection after that."""

import asyncio
import gc
import subprocess
import sys

import pytest

from api import app
from shared import gc_tuning
from tests import factories
from tests.processes import ROOT

WORKER = """
import gc
from celery import signals
import worker.runtime.app

gc.unfreeze()
for signal in (signals.worker_init, signals.worker_process_init):
    signal.send(sender=None)
    print(gc.get_freeze_count() > 50_000, gc.get_threshold()[0])
    gc.unfreeze()
    gc.set_threshold(700)
"""


def test_settling_freezes_what_there_is_and_unsettling_gives_it_back() -> None:
    before = gc.get_threshold()
    gc_tuning.freeze()
    try:
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (gc_tuning.YOUNG, *before[1:])
    finally:
        gc_tuning.unfreeze()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


def test_an_api_process_settles_when_it_has_started_and_no_longer_than_it_serves(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str
) -> None:
    async def frozen() -> int:
        async with app._built.router.lifespan_context(app._built):
            return gc.get_freeze_count()

    with factories.set_up(monkeypatch, database_url, redis_url):
        assert asyncio.run(frozen()) > 10_000
    assert gc.get_freeze_count() == 0


def test_a_worker_settles_before_it_forks_and_each_child_when_it_begins(database_url: str, redis_url: str) -> None:
    environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
    ran = subprocess.run(
        [sys.executable, "-c", WORKER], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split("\n")[:2] == [f"True {gc_tuning.YOUNG}"] * 2
