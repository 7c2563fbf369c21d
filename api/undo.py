"""POST /v1/edits/{editId}/undo: a new edit that sets back what an applied one changed (docs/api.md)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import edits
from api.context import Here, Writer, storable
from api.http import headers, problems, reading
from api.models.edits import Undo
from api.models.openapi import takes
from api.models.posts import Post
from api.submission import undo
from api.submission.recording import new_edit
from api.submission.undo import Wanted
from shared.domain.body_reading import read
from shared.domain.errors import NotFound, RedraftError

router = APIRouter(tags=["edits"], responses=problems.LOCKED)

UNSURE = (
    "The edit may have been undone; look at GET /v1/posts/{postId}/edits before you send this again, "
    "or repeat the request with the same Idempotency-Key"
)


@router.post(
    "/v1/edits/{edit_id}/undo",
    response_model=Post,
    response_description="The post as the undo left it",
    responses=edits.MADE,
    openapi_extra=takes("If-Match", "If-None-Match", "Idempotency-Key", "Prefer", body=Undo),
)
async def undo_edit(edit_id: str, request: Request, context: Here, key: Writer) -> Response:
    """Undo an applied edit: a new edit sets back what that one changed. Later edits of the same fields are a 409,
    unless the body says `{"force": true}`.
    """
    body = await reading.sent_body(request, None)
    repeat = reading.repeat_of(request, key.id, body)
    preference, tags, force = headers.NO_PREFERENCE, None, False
    problem: RedraftError | None = None
    try:
        preference = headers.prefer(request, context.config.wait_max)
        tags, problem = headers.preconditions(request)
        reading.check_query(request)
        force = body is not None and read(Undo, body).force
        if not storable(edit_id):
            problem = NotFound.edit(edit_id)
    except RedraftError as error:
        if repeat is None:
            raise
        problem = error
    wanted = Wanted(edit_id, new_edit(key, "", None), force, tags, problem, repeat)
    recorded, new = await context.write(undo.record, wanted, unsure=UNSURE)
    seconds = preference.patience(context.config.wait_default)
    if not recorded.replayed:
        edits.ring(context, [new], awaited=seconds > 0)
    return await edits.answered(context, key, new, recorded, preference, seconds=seconds)
