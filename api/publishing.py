"""POST /v1/posts/{postId}/publish: "publish now" for a post that waits, as an edit of its time (docs/lifecycle.md)."""

from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from api import edits, posts
from api.context import Here, Writer, storable
from api.http import headers, problems
from api.http.headers import Preconditions
from api.http.reading import NoBody, OnlyPreconditions
from api.models.edits import Edit
from api.models.openapi import carries, takes
from api.models.reschedules import Nothing
from api.submission.recording import new_edit
from shared.domain import errors, lifecycle
from shared.domain.edits import EditPatch
from shared.domain.errors import Conflict, Detail, NotFound
from shared.store import edits as edits_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store.edits import NewEdit
from shared.store.reads import EditRecord

router = APIRouter(tags=["posts"], responses=problems.LOCKED)

UNSURE: Final = "The edit may have been accepted; look at GET /v1/posts/{postId}/edits before you send this again"
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    202: carries("Edit-Id", "Location", description="Queued: ask at Location"),
    **problems.refuses(404, 409, 412, 413, 415),
}


@router.post(
    f"{posts.ONE}/publish",
    status_code=202,
    response_model=Edit,
    responses=_ANSWERS,
    openapi_extra=takes("If-Match", "If-None-Match", body=Nothing),
)
async def publish_post(
    post_id: str, context: Here, key: Writer, _body: NoBody, wanted: OnlyPreconditions
) -> Response:  # fmt: skip
    """Let a post that waits go out now: an edit sets its time to the moment at which it is accepted. Ask at Location
    what became of it. A post that missed its time while it was held goes out too; one that is held is a conflict.
    """
    if not storable(post_id):
        raise NotFound.post(post_id)
    new = new_edit(key, post_id, EditPatch(at_once=True), wanted.tags)
    edit = await context.write(record, new, wanted, unsure=UNSURE)
    context.ring(edits=[post_id])
    return edits.accepted(edit, headers.NO_PREFERENCE, {})


def record(tx: Connection, new: NewEdit, wanted: Preconditions) -> EditRecord:
    """Record the edit, unless it would be refused as the post is now. The worker judges all of it anew, under the lock.

    Raises NotFound, CannotEdit, Conflict, PreconditionFailed.
    """
    found, now = posts_store.read_posts(tx, [new.post_id])
    post = found.get(new.post_id)
    if post is None or now is None or post.workspace_id != new.workspace_id:
        raise NotFound.post(new.post_id)
    decision = lifecycle.decide(post.facts, EditPatch(at_once=True), now)
    if isinstance(decision, lifecycle.Reject):
        raise errors.restored(decision.code, decision.message, decision.details)
    hold = holds_store.effective(tx, [new.post_id]).get(new.post_id)
    if hold is not None and hold.missed:
        hold = hold.above
    if hold is not None:
        details = [Detail("held", hold.level.value)]
        raise Conflict(f"Post {new.post_id} is held, of its {hold.level}; resume that first", details=details)
    wanted.judge(post.facts.revision)
    edits_store.insert_edits(tx, [new], now)
    return edits.just_recorded(new, now)
