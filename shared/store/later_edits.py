"""What came after an applied edit of a post: what an undo of it would overwrite (docs/api.md)."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from shared.domain.undoing import Change
from shared.store.edits import AFTER

LOOKED_AT: Final = 20_000
"""Edits that came after it and that are looked at, the newest."""

# ix_edits_post. The inner LIMIT bounds what is looked at.
_LATER = text(f"""
    SELECT id, status, changes, before, {AFTER} FROM (
        SELECT * FROM edits WHERE post_id = :post AND seq > :seq ORDER BY seq DESC LIMIT :looked_at) looked_at
    WHERE (status = 'applied' AND before ?| CAST(:names AS text[]))
        OR (status = 'queued' AND changes ?| CAST(:names AS text[]))
    ORDER BY seq DESC LIMIT :limit""")
_MORE = text("SELECT EXISTS (SELECT FROM edits WHERE post_id = :post AND seq > :seq OFFSET :looked_at)")


def touching(tx: Connection, post_id: str, seq: int, names: Sequence[str], limit: int) -> list[Change]:
    """The post's edits with a higher number that changed one of these fields, or are queued and ask for one; newest
    first.
    """
    given = {"post": post_id, "seq": seq, "names": list(names), "looked_at": LOOKED_AT, "limit": limit}
    return [Change(*row) for row in tx.execute(_LATER, given)]


def too_many(tx: Connection, post_id: str, seq: int) -> bool:
    """Whether more edits came after it than are looked at."""
    return bool(tx.execute(_MORE, {"post": post_id, "seq": seq, "looked_at": LOOKED_AT}).scalar_one())
