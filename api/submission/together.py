"""Records the edits of one request together: each is judged by itself, one INSERT and one commit carry them all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Connection

from api.http import problems
from api.submission import recording
from api.submission.recording import Asked
from shared.domain.errors import Internal, RedraftError
from shared.domain.ids import new_id
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import posts as posts_store
from shared.store.edits import NewEdit
from shared.store.idempotency import Repeat

READ_TOGETHER = 100
"""Posts that are read at once: a post of slides may have 72 KB."""

Fate = dict[str, Any]
"""What became of one edit of the request, as the answer shows it: postId, status, editId, revision, error."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The fates of a request's edits, in their order. `new`: the edits that this request recorded.

    `replayed`: an earlier request with the same Idempotency-Key recorded the edits.
    """

    fates: list[Fate]
    new: list[NewEdit] = field(default_factory=list)
    replayed: bool = False


def record(tx: Connection, asked: Sequence[Asked] | RedraftError, repeat: Repeat | None) -> Recorded:
    """Record the edits that are not refused at once, and keep the key with their ids; or find what the first request
    with the key recorded. A request that records no edit keeps no key.

    Raises RedraftError: the request's own, IdempotencyKeyReused, KeyInHand.
    """
    if (first := idempotency_store.wait_for(tx, repeat)) is not None:
        return Recorded(from_json(first.answer or "[]"), replayed=True)
    if isinstance(asked, RedraftError):
        raise asked
    fates, new, accepted_at = _judged(tx, asked)
    if accepted_at is None or not new:
        return Recorded(fates)
    edits_store.insert_edits(tx, new, accepted_at)
    idempotency_store.keep(tx, repeat, new_id("edits"), to_json(fates).decode())
    return Recorded(fates, new)


def _judged(tx: Connection, asked: Sequence[Asked]) -> tuple[list[Fate], list[NewEdit], datetime | None]:
    """The fates as far as they are known, the edits to be recorded, and the moment for which they were judged."""
    fates: list[Fate] = []
    new: list[NewEdit] = []
    accepted_at: datetime | None = None
    for start in range(0, len(asked), READ_TOGETHER):
        some = asked[start : start + READ_TOGETHER]
        found, now = posts_store.read_posts(tx, [one.new.post_id for one in some if one.patch is not None])
        # The clock of the transaction: the same for all of them.
        accepted_at = accepted_at or now
        for one in some:
            refusal = recording.refusal(one, found, accepted_at)
            if refusal is None:
                new.append(one.new)
            fates.append(_fate(one.new, refusal))
    return fates, new, accepted_at


def _fate(new: NewEdit, refusal: RedraftError | None) -> Fate:
    status, edit_id = ("queued", new.id) if refusal is None else ("rejected", None)
    error = refusal and problems.shown(refusal)
    return {"postId": new.post_id, "status": status, "editId": edit_id, "revision": None, "error": error}


def finalize(fates: Sequence[Fate], ends: dict[str, EditResult]) -> bool:
    """Write the results into the fates. Returned: whether every edit has one."""
    waits = False
    for fate in fates:
        if fate["status"] != "queued":
            continue
        end = ends.get(fate["editId"])
        if end is None:
            waits = True
            continue
        fate["status"], fate["revision"] = end.status, end.revision
        if end.status is not EditStatus.APPLIED:
            fate["error"] = _error(end)
    return not waits


def _error(end: EditResult) -> dict[str, Any]:
    if end.status is EditStatus.FAILED:
        return problems.shown(Internal())
    said: dict[str, Any] = {"code": end.error_code, "message": end.error_message}
    return said | ({"details": end.error_details} if end.error_details else {})
