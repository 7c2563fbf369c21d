"""Records the undo of an applied edit: a new edit, the act of undoing, and the key, in one transaction."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from api.submission import forecast, recording
from api.submission.recording import Asked, Recorded
from shared.domain import edit_histories, lifecycle, posts, undoing
from shared.domain.errors import Conflict, NotFound, PreconditionFailed, RedraftError
from shared.domain.lifecycle import NOT, PostFacts, etag
from shared.domain.undoing import Change
from shared.store import acts, later_edits, reads
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import posts as posts_store
from shared.store.acts import Act, Actor
from shared.store.edits import NewEdit
from shared.store.idempotency import Repeat
from shared.store.reads import EditRecord


@dataclass(frozen=True, slots=True)
class Wanted:
    """One undo. `new`: the edit to be made, its post and its changes still empty. `tags`: the preconditions of the
    request. `problem`: what is wrong with the request, answered only if its key is new.
    """

    edit_id: str
    new: NewEdit
    force: bool
    tags: tuple[str, ...] | None
    problem: RedraftError | None
    repeat: Repeat | None


def record(tx: Connection, wanted: Wanted) -> tuple[Recorded, NewEdit]:
    """Record the edit that sets back what another one changed; or find the one that the first request with the key
    recorded. Raises RedraftError.

    The new edit names the revision that was looked at as its precondition. So a change that comes in between is never
    overwritten unseen: the worker refuses the undo under the post's lock.
    """
    new = wanted.new
    if (first := idempotency_store.wait_for(tx, wanted.repeat)) is not None:
        return Recorded(first.resource, None, replayed=True), new
    hopeless = wanted.problem if isinstance(wanted.problem, PreconditionFailed) else None
    if wanted.problem is not hopeless and wanted.problem is not None:
        raise wanted.problem
    edit = reads.edit(tx, new.workspace_id, wanted.edit_id)
    if edit is None:
        raise NotFound.edit(wanted.edit_id)
    # In this order: the post, its queue, the edits that came later. A change that comes in between is then among the
    # later edits, or it moves the revision on that the undo names.
    found, now = posts_store.read_posts(tx, [edit.post_id])
    if now is None or found[edit.post_id].facts.deleted:
        raise NotFound.post(edit.post_id)
    facts = found[edit.post_id].facts
    tags = wanted.tags if wanted.force else _looked_at(forecast.behind_queue(tx, facts), wanted.tags)
    change = Change(edit.id, edit.status, edit.changes, edit.before, edit.after)
    _refuse(tx, edit, change, force=wanted.force)
    patch = undoing.back(change, facts.timezone)
    if isinstance(patch, Conflict):
        raise patch
    new = replace(new, post_id=edit.post_id, changes=patch.changes())
    refusal = recording.refusal(Asked(new, patch, hopeless), found, now)
    if refusal is not None:
        raise refusal
    if isinstance(tags, PreconditionFailed):
        raise tags
    new = replace(new, if_match=tags)
    edits_store.insert_edits(tx, [new], now)
    idempotency_store.keep(tx, wanted.repeat, new.id)
    # What stands there now is what the undo overwrites.
    stood, _ = posts.difference(facts, lifecycle.edited(facts, patch))
    act = Act(acts.UNDO, "edit", edit.id, new.workspace_id, edit.status, stood | {"undoneBy": new.id})
    acts.record(tx, Actor(new.requested_by, new.api_key_id, new.request_id), [act])
    return Recorded(new.id, now), new


def _refuse(tx: Connection, edit: EditRecord, change: Change, *, force: bool) -> None:
    """Raises Conflict for an edit that cannot be undone, or that later edits overwrote in part."""
    later = later_edits.touching(tx, edit, edit_histories.names_of(change.groups()), undoing.NAMED_AT_MOST + 1)
    conflict = undoing.cannot_undo(change, later, force=force)
    if conflict is None and not force and later_edits.too_many(tx, edit):
        conflict = Conflict('Too many edits came after it to look at them all; send {"force": true} to undo it anyway')
    if conflict is not None:
        raise conflict


def _looked_at(behind_queue: PostFacts, tags: tuple[str, ...] | None) -> tuple[str, ...] | PreconditionFailed:
    """The preconditions that hold only for the post as it was looked at, with its queued edits applied; the refusal
    where the request asks for another revision, which is answered after all others (RFC 9110, 13.2.1).
    """
    revision = behind_queue.revision
    if not lifecycle.matches(tags, revision):
        return PreconditionFailed(revision)
    return (etag(revision), *(tag for tag in tags or () if tag.startswith(NOT)))
