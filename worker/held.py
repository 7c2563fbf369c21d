"""Posts that somebody held, tried again together (shared/held.py says why)."""

from collections.abc import Collection

from shared import held
from shared.db import transaction
from shared.store import edits as edits_store
from worker.apply import Applied, apply_edits


def try_again() -> tuple[Applied, Collection[str]]:
    """What became of them, and the addresses where that is to be told."""
    addresses = held.take()
    applied = apply_edits(addresses)
    free = addresses.keys() - set(applied.held)
    held.forget(free)
    # Only now: an edit of one of them that came meanwhile was left to us.
    with transaction() as tx:
        applied.more = sorted({*applied.more, *edits_store.posts_with_a_queue(tx, free)})
    return applied, set(addresses.values()) - {""}
