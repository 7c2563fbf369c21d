"""POST /v1/edits: many edits in one request, each with its own fate (docs/api.md)."""

from functools import partial
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import edits
from api.context import Context, Here, Writer, storable
from api.http import headers, problems, reading
from api.http.headers import Preference
from api.http.json_answer import JsonAnswer
from api.http.reading import BULK_BODY_LIMIT, JSON_TYPES
from api.models.many_edits import ManyEdited, ManyEdits, parse_edits, parse_item
from api.models.openapi import carries, takes
from api.submission import together
from api.submission.recording import Asked, new_edit
from api.submission.together import Recorded
from shared.domain.edits import EditPatch
from shared.domain.errors import NotFound, PreconditionFailed, RedraftError, Unavailable, printable
from shared.store import edits as edits_store
from shared.store.idempotency import Repeat
from shared.store.keys import Key

router = APIRouter(tags=["edits"], responses=problems.LOCKED)

PARSED_AT_ONCE = 2 * 1024
"""Bytes of a body that is read on the event loop, in milliseconds at worst. A larger one is read in a thread."""

UNSURE = (
    "The edits may have been accepted; look at GET /v1/edits before you send them again, "
    "or repeat the request with the same Idempotency-Key"
)


class Wanted(NamedTuple):
    """One request. `asked`: its edits, or what is wrong with the whole: answered only if its key is new."""

    asked: list[Asked] | RedraftError
    preference: Preference
    repeat: Repeat | None


@router.post(
    "/v1/edits",
    response_model=ManyEdited,
    responses={
        200: carries("Preference-Applied", "Idempotent-Replayed"),
        202: carries(
            "Preference-Applied",
            "Idempotent-Replayed",
            model=ManyEdited,
            description="Safely queued, not all of them applied yet: ask GET /v1/edits/{editId}",
        ),
        **problems.refuses(413, 415, 422),
    },
    openapi_extra=takes("Idempotency-Key", "Prefer", body=ManyEdits),
)
async def edit_posts(request: Request, context: Here, key: Writer) -> Response:
    """Edit many posts, each edit with its own fate. Each is judged, recorded and applied as a PATCH is: one that is
    refused has its error in its place and takes no other with it.
    """
    content = await reading.read_body(request, BULK_BODY_LIMIT)
    reading.check_media_type(request, JSON_TYPES)
    given = (request, content, key, context.config.wait_max)
    if not context.large_bodies.admits(key.workspace_id):
        raise await context.held_back(key.id, Unavailable())
    with context.large_bodies.taken(key.workspace_id, -(-len(content) // 1024)):
        if len(content) > PARSED_AT_ONCE:
            wanted = await context.parse_placed(_wanted, *given)
        else:
            wanted = _wanted(*given)
        context.submission.seen(key.workspace_id)
        count = len(wanted.asked) if isinstance(wanted.asked, list) else 0
        async with context.submission.many.turn(key.workspace_id, count) as under_way:
            recorded = await context.write(together.record, wanted.asked, wanted.repeat, unsure=UNSURE)
            under_way += [edit.id for edit in recorded.new]
    seconds = wanted.preference.patience(context.config.wait_default)
    edits.ring(context, recorded.new, awaited=seconds > 0)
    final = await _waited(context, key, recorded, seconds)
    more = wanted.preference.applied(answered_async=not final) | (reading.REPLAYED if recorded.replayed else {})
    return JsonAnswer({"data": recorded.fates}, 200 if final else 202, more)


def _wanted(request: Request, content: bytes, key: Key, wait_max: float) -> Wanted:
    """What a body asks for. Raises RedraftError for a request that can repeat no earlier one."""
    body = reading.parse_json(content)
    repeat = reading.repeat_of(request, key.id, body)
    preference = headers.NO_PREFERENCE
    asked: list[Asked] | RedraftError
    try:
        preference = headers.prefer(request, wait_max)
        reading.check_query(request)
        asked = [_asked(item, key) for item in parse_edits(body)]
    except RedraftError as problem:
        if repeat is None:
            raise
        asked = problem
    return Wanted(asked, preference, repeat)


def _asked(item: dict[str, Any], key: Key) -> Asked:
    """One edit, with what is wrong with it."""
    given = item.get("postId", "")
    post_id = given if isinstance(given, str) else ""
    patch, tags, problem = _understood(item)
    if not storable(post_id):
        post_id = printable(post_id, 255)
        problem = problem if problem and not isinstance(problem, PreconditionFailed) else NotFound.post(post_id)
    return Asked(new_edit(key, post_id, patch, tuple(tags) or None), patch, problem)


def _understood(item: dict[str, Any]) -> tuple[EditPatch | None, list[str], RedraftError | None]:
    """What an item asks for, and what is wrong with it: (patch, the tags of ifMatch, problem)."""
    try:
        patch, if_match = parse_item(item)
        tags, hopeless = headers.if_match([if_match], "ifMatch") if if_match is not None else ([], None)
    except RedraftError as problem:
        return None, [], problem
    return patch, tags, hopeless


_bare_results = partial(edits_store.results_of, bodies=False)


async def _waited(context: Context, key: Key, recorded: Recorded, seconds: float) -> bool:
    """Wait for the results, and write them into the fates. Returned: whether each edit has its result."""
    fates, waiting = recorded.fates, context.submission.waiting
    queued = [fate["editId"] for fate in fates if fate["status"] == "queued"]
    if recorded.replayed and queued:
        if together.finalize(fates, await context.read(_bare_results, queued)):
            return True
        queued = [fate["editId"] for fate in fates if fate["status"] == "queued"]
    if queued and seconds and waiting.admits(key.workspace_id):
        return together.finalize(fates, await waiting.wait_for_all(queued, seconds, key.workspace_id))
    return not queued
