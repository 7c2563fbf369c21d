"""POST /v1/posts/{postId}/publish: "publish now" for a post that waits, as an edit of its time (docs/lifecycle.md)."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from api import edits, posts
from api.context import Here, Writer, storable
from api.http import headers, problems
from api.http.reading import NoBody, OnlyPreconditions
from api.models.edits import Edit
from api.models.openapi import carries, takes
from api.models.reschedules import Nothing
from api.submission.recording import new_edit
from shared.domain.errors import NotFound
from shared.store import publishing

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
    new = new_edit(key, post_id, publishing.AT_ONCE, wanted.tags)
    accepted_at = await context.write(publishing.record, new, wanted.hopeless, unsure=UNSURE)
    context.ring(edits=[post_id])
    return edits.accepted(edits.just_recorded(new, accepted_at), headers.NO_PREFERENCE, {})
