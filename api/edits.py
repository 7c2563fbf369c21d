"""Routes of /v1/edits: an edit and its result, and the answer to the request that made it (docs/api.md)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.context import Context, Here, Reader, storable
from api.http import headers, pagination, problems, reading
from api.http.headers import Preference
from api.http.json_answer import JsonAnswer
from api.http.reading import NoQuery
from api.models.edits import Edit, EditPage, EditsQuery
from api.models.openapi import carries, takes
from api.submission import recording
from api.submission.recording import Recorded
from shared.domain import errors
from shared.domain.errors import Detail, NotFound, Unavailable
from shared.domain.lifecycle import EditStatus, etag
from shared.domain.queued_edits import EditResult
from shared.domain.times import format_instant
from shared.store import edits as edits_store
from shared.store import reads
from shared.store.edits import NewEdit
from shared.store.keys import Key
from shared.store.reads import EditRecord
from shared.telemetry import metrics, tracing

router = APIRouter(tags=["edits"], responses=problems.LOCKED)


MADE: Final = {
    200: carries("ETag", *problems.OF_EDIT),
    202: carries(*problems.OF_EDIT, model=Edit, description="Safely queued, not applied yet: ask at Location"),
    **problems.refuses(404, 409, 412, 413, 415, 422),
}
"""The answers of a route that makes an edit and waits for its result."""


def ring(context: Context, new: Sequence[NewEdit], *, awaited: bool) -> None:
    """Ring for edits that were recorded in a transaction of their own, below its commit."""
    if new:
        metrics.edits_accepted(len(new))
        for edit in new:
            tracing.remember(edit.post_id)
        owners = {edit.post_id: edit.workspace_id for edit in new}
        context.submission.bell.ring_for(((edit.post_id, edit.id) for edit in new), awaited=awaited, owners=owners)


def resource(edit: EditRecord) -> dict[str, Any]:
    """The edit as the API shows it."""
    error: dict[str, Any] | None = None
    if edit.error_code is not None:
        error = {"code": edit.error_code, "message": edit.error_message}
        if edit.error_details:
            error["details"] = edit.error_details
    return {
        "editId": edit.id,
        "postId": edit.post_id,
        "status": edit.status,
        "changes": edit.changes,
        "createdAt": format_instant(edit.created_at),
        "finalizedAt": format_instant(edit.finalized_at) if edit.finalized_at else None,
        "attempts": edit.attempts,
        "revision": edit.revision,
        "before": edit.before,
        "after": edit.after,
        "error": error,
        "requestedBy": edit.requested_by,
    }


def just_recorded(new: NewEdit, created_at: datetime) -> EditRecord:
    """An edit as its row is right after the commit, made without reading the row."""
    return EditRecord(new.id, new.post_id, EditStatus.QUEUED.value, new.changes, created_at, new.requested_by)


def accepted(edit: EditRecord, preference: Preference, replayed: dict[str, str]) -> Response:
    """202: the edit is safely queued, and Location says where to ask for it."""
    where = {"Location": f"/v1/edits/{edit.id}", "Edit-Id": edit.id}
    return JsonAnswer(resource(edit), 202, where | preference.applied(answered_async=True) | replayed)


def answer(end: EditResult, preference: Preference, replayed: dict[str, str]) -> Response:
    """The answer to the PATCH that made this edit: the post as the edit left it, or why the edit was refused."""
    if end.status is EditStatus.APPLIED:
        named = {"ETag": etag(end.revision or 0), "Edit-Id": end.id, "Location": f"/v1/edits/{end.id}"}
        carried = named | preference.applied(answered_async=False) | replayed
        return Response(end.result, 200, carried, media_type="application/json")
    if end.status is EditStatus.FAILED:
        return problems.response(errors.Internal(edit_id=end.id), replayed)
    details = [Detail(detail["field"], detail["message"]) for detail in end.error_details or ()]
    error = errors.restored(end.error_code or "internal", end.error_message or "", details, edit_id=end.id)
    if isinstance(error, errors.PreconditionFailed):
        error.revision = end.revision
    return problems.response(error, preference.applied(answered_async=False) | replayed)


async def answered(
    context: Context, key: Key, new: NewEdit, verdict: Recorded, preference: Preference, *, seconds: float
) -> Response:
    """Wait `seconds` for the edit's result; 202 if it is still queued then, or if too many requests wait already.

    A repeated request is answered from the row, and waits only if the edit is still queued. So whether it gets the
    first request's result does not depend on how fast a look-up is.
    """
    waiting = context.submission.waiting
    replayed = reading.REPLAYED if verdict.replayed else {}
    if not waiting.admits(key.workspace_id):
        seconds = 0.0
    if verdict.created_at is not None:
        end = await waiting.wait(verdict.edit_id, seconds, key.workspace_id) if seconds else None
        if end is None:
            return accepted(just_recorded(new, verdict.created_at), preference, replayed)
    else:
        queued, end = await context.read(_edit_and_end, key.workspace_id, verdict.edit_id)
        if end is None and seconds:
            end = await waiting.wait(verdict.edit_id, seconds, key.workspace_id)
        if end is None:
            return accepted(queued, preference, replayed)
    return answer(end, preference, replayed)


def _edit_and_end(tx: Connection, workspace_id: str, edit_id: str) -> tuple[EditRecord, EditResult | None]:
    """An edit and its End, if it has one. Read in this order: an edit shown as queued was queued when it was read."""
    edit = reads.edit(tx, workspace_id, edit_id)
    if edit is None:
        raise NotFound.edit(edit_id)
    return edit, edits_store.results_of(tx, [edit_id]).get(edit_id)


@router.get("/v1/edits", response_model=EditPage)
async def list_edits(query: Annotated[EditsQuery, Query()], request: Request, context: Here, key: Reader) -> Response:
    """Edits, newest first, also those of deleted posts: what became of many 202s in few calls. An edit that an operator
    requeued comes first, as a new one would.
    """
    asked = pagination.read(query, request, key.workspace_id, await context.seal(), pagination.BY_NUMBER)
    page = await context.read(reads.edits_page, key.workspace_id, asked.filters, asked.after, asked.limit)
    return asked.answer([resource(edit) for edit in page.items], page.next_place)


@router.get(
    "/v1/edits/{edit_id}",
    response_model=Edit,
    responses={200: carries("Preference-Applied"), **problems.refuses(404)},
    openapi_extra=takes("Prefer"),
)
async def get_edit(edit_id: str, request: Request, context: Here, key: Reader, _: NoQuery) -> Response:
    """One edit, and what became of it. `Prefer: wait=N` waits for its end."""
    preference = headers.prefer(request, context.config.wait_max)
    # Asked before the read: an edit that is being recorded now may be committed right after the read.
    in_hand = recording.in_hand(key.workspace_id, edit_id)
    edit = await context.read(reads.edit, key.workspace_id, edit_id) if storable(edit_id) else None
    if edit is None and in_hand:
        # Whether it is there cannot be said yet.
        raise Unavailable(message=f"Edit {edit_id} is being recorded at this moment; ask again in 1 second")
    if edit is None:
        raise NotFound.edit(edit_id)
    waiting = context.submission.waiting
    wait = preference.wait if edit.status == EditStatus.QUEUED.value else None
    if wait and waiting.admits(key.workspace_id):
        await waiting.wait(edit_id, wait, key.workspace_id)
        edit = await context.read(reads.edit, key.workspace_id, edit_id) or edit
    return JsonAnswer(resource(edit), headers=preference.applied(answered_async=False))
