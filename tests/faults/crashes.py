"""Crash points for a worker: `celery worker --include=tests.faults.crashes`. Never a switch in the product.

The first word of a caption chooses what happens to the pool child that runs the edit:

    die-before-commit   killed when all is decided and nothing committed, the first time it is tried
    die-after-commit    killed right after the commit, before anybody is told
    poison              killed each time it is decided
    slow                two seconds before the writes and the COMMIT are sent, under the lock
    linger-20           twenty seconds between COMMIT and the end of the task, or as many as it says
    freeze              stopped (SIGSTOP) under the lock, the first time it is tried

Each says so on stderr before it strikes, so that a test can see that it did.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from shared.domain import lifecycle
from shared.domain.fields import UNSET
from shared.store import batches, db
from shared.store import edits as edits_store
from worker import apply

SLOW = 2.0

_running: dict[str, tuple[str, int]] = {}
_after_commit: list[str] = []


def _strike(point: str, edit_id: str, signal_number: int | None = None) -> None:
    os.write(2, f"struck {point} {edit_id} in {os.getpid()}\n".encode())
    if signal_number is not None:
        os.kill(os.getpid(), signal_number)


_read = edits_store.queued_edits
_take = batches.take
_finalize = batches.finalize
_decide = lifecycle.decide
_transaction = db.transaction


def _word(caption: object) -> str:
    return caption.partition(" ")[0] if isinstance(caption, str) else ""


def queued_edits(tx: Connection, *asked: Any, **named: Any) -> Any:
    queue = _read(tx, *asked, **named)
    _remember(queue)
    return queue


def take(tx: Connection, *asked: Any, **named: Any) -> Any:
    taken = _take(tx, *asked, **named)
    _remember(taken.queue)
    return taken


def _remember(queue: Any) -> None:
    _running.clear()
    _running.update({edit.id: (_word(edit.changes.get("caption")), edit.attempts) for edit in queue.edits})


def decide(post: Any, patch: Any, *rest: Any, **named: Any) -> Any:
    if patch.caption is not UNSET and _word(patch.caption) == "poison":
        _strike("poison", post.id, signal.SIGKILL)
    return _decide(post, patch, *rest, **named)


def finalize(tx: Connection, writes: Sequence[Any], results: Sequence[Any], **given: Any) -> None:
    _finalize(tx, writes, results, **given)
    for end in results:
        word, attempts = _running.get(end.id, ("", 0))
        if word == "die-before-commit" and attempts == 0:
            _strike(word, end.id, signal.SIGKILL)
        elif word == "freeze" and attempts == 0:
            _strike(word, end.id, signal.SIGSTOP)
        elif word == "slow":
            _strike(word, end.id)
            time.sleep(SLOW)
        elif word == "die-after-commit" or word.startswith("linger-"):
            _after_commit.append(f"{word} {end.id}")


@contextmanager
def transaction() -> Iterator[Connection]:
    _after_commit.clear()
    with _transaction() as tx:
        yield tx
    for due in _after_commit:
        word, _, edit_id = due.partition(" ")
        if word.startswith("linger-"):
            _strike(word, edit_id)
            time.sleep(float(word.removeprefix("linger-")))
        else:
            _strike(word, edit_id, signal.SIGKILL)


edits_store.queued_edits = queued_edits
batches.take = take
batches.finalize = finalize
lifecycle.decide = decide
apply.transaction = transaction  # type: ignore[assignment,attr-defined]  # in apply alone
