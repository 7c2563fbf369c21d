"""Crash points for a bulk worker: `celery worker --include=tests.faults.bulk_crashes`. Never a switch in the product.

FAULTS_BULK says `seed/odds`: each chunk draws its fate from the seed and its number, one in `odds` of them killed when
all is written and nothing committed, the first time it is tried, and as many right after the commit, before the next
chunk is rung for. Each says so on stderr before it strikes, so that a test can count.
"""

import os
import random
import signal
from typing import Any

from sqlalchemy import Connection

from shared.store import reschedule_chunks as chunks_store
from worker import reschedule

SEED, _, ODDS = os.environ["FAULTS_BULK"].partition("/")

_begun: dict[str, int] = {}
_count = chunks_store.count_attempt
_advance = chunks_store.advance
_take = reschedule.Ran.take


def _strike(point: str, number: int) -> None:
    os.write(2, f"struck {point} chunk {number} in {os.getpid()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _fate(number: int) -> int:
    return random.Random(f"{SEED}/{number}").randrange(int(ODDS))


def count_attempt(relaxed: Connection, job_id: str, number: int) -> int:
    attempts = _count(relaxed, job_id, number)
    _begun.update(number=number, attempts=attempts)
    return attempts


def advance(tx: Connection, job_id: str, step: Any) -> Any:
    progress = _advance(tx, job_id, step)
    if step.chunks and _begun["attempts"] == 1 and _fate(_begun["number"]) == 0:
        _strike("before-commit", _begun["number"])
    return progress


def take(self: reschedule.Ran, done: Any, progress: Any, *, room: bool) -> None:
    if not done.chunk.done and _fate(done.chunk.number) == 1:
        _strike("after-commit", done.chunk.number)
    _take(self, done, progress, room=room)


chunks_store.count_attempt = count_attempt
chunks_store.advance = advance
reschedule.Ran.take = take  # type: ignore[method-assign]
