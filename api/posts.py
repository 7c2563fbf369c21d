"""Routes of /v1/posts: editing a post, and reading posts (docs/api.md)."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from api import edits
from api.context import Context, Here, Reader, Writer, context_of, storable
from api.http import authentication, headers, pagination, problems, reading
from api.http.headers import Preference
from api.http.json_answer import JsonAnswer
from api.http.pagination import Paging
from api.http.reading import NoQuery
from api.models.edits import EditPage, PostOrDryRun, PostPatch, parse_patch
from api.models.openapi import carries, takes
from api.models.posts import PostDetails, PostPage, PostsQuery
from api.submission import forecast, recording
from api.submission.recording import Asked, Verdict
from shared.domain.edits import EditPatch
from shared.domain.errors import KeyInHand, NotFound, RedraftError
from shared.domain.lifecycle import ClaimKind, etag
from shared.domain.posts import detailed, public
from shared.store import reads
from shared.store.edits import NewEdit
from shared.telemetry import tracing

router = APIRouter(tags=["posts"], responses=problems.LOCKED)


class PostIds(StringConvertor):
    """A post's id in a path: any segment but "video" and "slideshow", which are routes of their own
    (api/creation.py). So a wrong method there is a 405, and not a post named "video".
    """

    regex = "(?!(?:video|slideshow)$)[^/]+"


register_url_convertor("post", PostIds())
ONE = "/v1/posts/{post_id:post}"

DRY_RUN = "dryRun"

# Seconds between two tries while another process is recording the same key, which takes it a few milliseconds.
KEY_IN_HAND_FIRST, KEY_IN_HAND_MOST = 0.005, 0.1


@router.patch(
    ONE,
    response_model=PostOrDryRun,
    response_description="The post as this edit left it; of a dry run, what the edit would do",
    responses=edits.MADE,
    openapi_extra=takes(
        *("If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "dryRun"),
        body=PostPatch,
        types=reading.PATCH_TYPES,
    ),
)
async def edit_post(post_id: str, request: Request, context: Here, key: Writer) -> Response:
    """Edit a post that waits to go live. `dryRun=true` says what the edit would do, and records nothing."""
    body = await reading.json_body(request, reading.PATCH_TYPES)
    repeat = reading.repeat_of(request, key.id, body)
    dry_run = _is_dry_run(request)
    patch, if_match, preference, problem = _understood(request, body, context, post_id)
    if patch is None and problem is not None and (repeat is None or dry_run):
        raise problem
    new = recording.new_edit(key, post_id, patch, if_match, repeat)
    if dry_run:
        return await _forecast(context, Asked(new, patch, problem))
    tracing.remember(new.post_id)
    seconds = preference.patience(context.config.wait_default)
    verdict = await _recorded(context, new, patch, problem, awaited=seconds > 0)
    if isinstance(verdict, RedraftError):
        return problems.response(verdict)
    return await edits.answered(context, key, new, verdict, preference, seconds=seconds)


def _is_dry_run(request: Request) -> bool:
    try:
        return reading.flag(request, DRY_RUN)
    except RedraftError:
        # It is answered in its place in the order of checks.
        return False


async def _forecast(context: Context, asked: Asked) -> Response:
    found = await context.read(forecast.look, asked)
    effect = found.effect
    shown = {
        "post": public(found.post, found.after),
        "changes": effect.changes,
        "rerender": effect.rerender,
        "publishMoved": effect.publish_moved,
    }
    return JsonAnswer(shown)


async def edit_post_directly(request: Request) -> Response:
    """The same, called by PatchFastPath with the parameters that FastAPI would find, at a fifth of its price."""
    context = context_of(request)
    key = await context.authenticated(request, authentication.WRITE)
    return await edit_post(request.path_params["post_id"], request, context, key)


async def _recorded(
    context: Context, new: NewEdit, patch: EditPatch | None, problem: RedraftError | None, *, awaited: bool
) -> Verdict:
    """The verdict on the request. While another process is recording its Idempotency-Key, the request is tried again.

    That wait takes no thread and no connection, so that one such key delays no other request.
    """
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + context.config.database_patience, KEY_IN_HAND_FIRST
    while True:
        verdict = await context.submission.record(new, patch, problem, awaited=awaited)
        if not isinstance(verdict, KeyInHand) or loop.time() + pause > until:
            return verdict
        await asyncio.sleep(pause)
        pause = min(2 * pause, KEY_IN_HAND_MOST)


def _understood(
    request: Request, body: Any, context: Context, post_id: str
) -> tuple[EditPatch | None, tuple[str, ...] | None, Preference, RedraftError | None]:
    """What the request asks for, and what is wrong with it: (patch, If-Match, preference, problem).

    A wrong request is not refused here: it may repeat an Idempotency-Key, and then gets the first request's answer.
    """
    try:
        preference = headers.prefer(request, context.config.wait_max)
        if_match, hopeless = headers.preconditions(request)
        reading.check_query(request, {DRY_RUN})
        reading.flag(request, DRY_RUN)
        patch = parse_patch(body)
    except RedraftError as problem:
        return None, None, headers.NO_PREFERENCE, problem
    if not storable(post_id):
        return None, None, preference, NotFound.post(post_id)
    return patch, if_match, preference, hopeless


@router.get("/v1/posts", response_model=PostPage)
async def list_posts(query: Annotated[PostsQuery, Query()], request: Request, context: Here, key: Reader) -> Response:
    """Posts, newest first, or by the time at which they go out."""
    asked = pagination.read(query, request, key.workspace_id, await context.seal(), pagination.BY_TIME_AND_ID)
    page = await context.read(reads.posts_page, key.workspace_id, asked.filters, asked.after, asked.limit)
    return asked.answer([public(post) for post in page.items], page.next_place)


@router.get(
    "/v1/posts/{post_id}/edits",
    response_model=EditPage,
    responses=problems.refuses(404),
)
async def list_edits_of_post(
    post_id: str, query: Annotated[Paging, Query()], request: Request, context: Here, key: Reader
) -> Response:
    """A post's audit trail, newest first: who changed what, from what, to what."""
    asked = pagination.read(query, request, key.workspace_id, await context.seal(), pagination.BY_NUMBER)
    page = None
    if storable(post_id):
        page = await context.read(reads.posts_edits_page, key.workspace_id, post_id, asked.after, asked.limit)
    if page is None:
        raise NotFound.post(post_id)
    return asked.answer([edits.resource(edit) for edit in page.items], page.next_place)


@router.get(
    ONE,
    response_model=PostDetails,
    responses={200: carries("ETag"), 304: carries("ETag", description="You have it"), **problems.refuses(404)},
    openapi_extra=takes("If-None-Match"),
)
async def get_post(post_id: str, request: Request, context: Here, key: Reader, _: NoQuery) -> Response:
    """One post, and how it ended."""
    found = await context.read(reads.post_and_hold, key.workspace_id, post_id) if storable(post_id) else None
    if found is None:
        raise NotFound.post(post_id)
    post, hold = found
    shown = detailed(post, hold)
    if post.facts.claim is ClaimKind.PUBLISH:
        # Whether it can be edited changes with the claim, and the revision does not: no tag says which of the two.
        return JsonAnswer(shown)
    tag = etag(post.facts.revision)
    known = headers.entity_tags(request.headers.getlist("if-none-match"), "If-None-Match")
    if headers.names(known, tag) and hold is None:
        return Response(status_code=304, headers={"ETag": tag})
    # A hold is no revision: an edit with If-Match goes on. So no client keeps an answer that shows one.
    stored = {} if hold is None else {"Cache-Control": "no-store"}
    return JsonAnswer(shown, headers={"ETag": tag} | stored)
