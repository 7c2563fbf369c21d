"""The API with crash points planted: `uvicorn tests.faults.crashing_api:app`. Never a switch in the product.

The end of a post's id chooses when the process is killed that takes an edit of it: `_before_commit`, `_before_bell`
(committed, nobody rung), `_before_answer` (rung, nobody told).
"""

import os
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from api.app import app
from api.submission.doorbell import Doorbell
from shared.store import edits as edits_store

__all__ = ["app"]

_ring_for = Doorbell.ring_for
_insert_edits = edits_store.insert_edits


def _strike(point: str, post_ids: Iterable[str]) -> None:
    if any(post_id.endswith(point) for post_id in post_ids):
        os.write(2, f"struck {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def insert_edits(tx: Any, new: Sequence[Any], accepted_at: Any) -> set[str]:
    # The INSERT is its own transaction: the last moment before its commit is the one before it is sent.
    _strike("_before_commit", (edit.post_id for edit in new))
    return _insert_edits(tx, new, accepted_at)


def ring_for(self: Doorbell, pairs: Iterable[tuple[str, str]], **how: Any) -> None:
    pairs = list(pairs)
    _strike("_before_bell", (post_id for post_id, _ in pairs))
    _ring_for(self, pairs, **how)
    if any(post_id.endswith("_before_answer") for post_id, _ in pairs):
        # Killed once the bell is through, long before a worker can have answered it.
        for ringing in self._sending:
            ringing.add_done_callback(lambda _: _strike("_before_answer", [post_id for post_id, _ in pairs]))


edits_store.insert_edits = insert_edits
Doorbell.ring_for = ring_for  # type: ignore[method-assign]
