"""What came after an applied edit of a post: what an undo of it would overwrite (docs/api.md)."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from shared.domain.undoing import Change
from shared.store.edits import AFTER
from shared.store.reads import EditRecord

LOOKED_AT: Final = 20_000
"""Edits that came after it and that are looked at, the newest."""
AT_ONCE: Final = 1_000
"""Edits with a lower number that are looked at, the newest."""

# ix_edits_post, from both sides of the edit's number: of two edits that were recorded at the same moment, the one with
# the lower number may be applied last. The inner LIMITs bound what is looked at.
_LATER = text(f"""
    SELECT id, status, changes, before, {AFTER} FROM (
        (SELECT * FROM edits WHERE post_id = :post AND seq > :seq ORDER BY seq DESC LIMIT :looked_at)
        UNION ALL (SELECT * FROM edits WHERE post_id = :post AND seq < :seq ORDER BY seq DESC LIMIT :at_once)
    ) looked_at
    WHERE (status = 'applied' AND revision > :revision AND before ?| CAST(:names AS text[]))
        OR (status = 'queued' AND changes ?| CAST(:names AS text[]))
    ORDER BY seq DESC LIMIT :limit""")
_MORE = text("SELECT EXISTS (SELECT FROM edits WHERE post_id = :post AND seq > :seq OFFSET :looked_at)")


def touching(tx: Connection, edit: EditRecord, names: Sequence[str], limit: int) -> list[Change]:
    """The edits of the same post that were applied after this one and changed one of these fields, or are queued and
    ask for one; newest first.
    """
    given = {"post": edit.post_id, "seq": edit.seq, "revision": edit.revision, "names": list(names)}
    bounds = {"looked_at": LOOKED_AT, "at_once": AT_ONCE, "limit": limit}
    return [Change(*row) for row in tx.execute(_LATER, given | bounds)]


def too_many(tx: Connection, edit: EditRecord) -> bool:
    """Whether more edits came after it than are looked at."""
    given = {"post": edit.post_id, "seq": edit.seq, "looked_at": LOOKED_AT}
    return bool(tx.execute(_MORE, given).scalar_one())
