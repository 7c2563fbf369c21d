"""POST /v1/posts/video and /v1/posts/slideshow: create posts, one for each account (docs/api.md)."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.responses import Response

from api.context import Context, Here, Writer
from api.http import headers, problems, reading
from api.http.reading import REPLAYED, JsonBody
from api.models import new_posts
from api.models.creation import Created as PostsCreated
from api.models.creation import NewSlideshows, NewVideos
from api.models.new_posts import NewPostRequest
from api.models.openapi import carries, takes
from shared.domain.body_reading import read
from shared.domain.errors import IdempotencyKeyReused, RedraftError
from shared.domain.ids import new_id
from shared.domain.posts import Post, public
from shared.store import creation as creation_store
from shared.store import idempotency as idempotency_store
from shared.store.idempotency import Kept, Repeat
from shared.store.keys import Key

router = APIRouter(tags=["posts"], responses=problems.LOCKED)

UNSURE = (
    "The posts may have been created; look at GET /v1/posts before you send them again, "
    "or repeat the request with the same Idempotency-Key"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `new`: what it asks for, or its error, which is answered only if its Idempotency-Key is new."""

    owner: Key
    new: NewPostRequest | RedraftError
    repeat: Repeat | None
    horizon: float


@dataclass(frozen=True, slots=True)
class Created:
    """The body of the answer, and the posts that this request created; none if an earlier request created them."""

    answer: str
    posts: list[Post]
    replayed: bool = False


def _documented(model: type[NewVideos | NewSlideshows]) -> dict[str, Any]:
    return {
        "status_code": 201,
        "response_model": PostsCreated,
        "responses": {201: carries("Idempotent-Replayed"), **problems.refuses(404, 413, 415, 422)},
        "openapi_extra": takes("Idempotency-Key", body=model),
    }


@router.post("/v1/posts/video", **_documented(NewVideos))
async def create_videos(request: Request, context: Here, owner: Writer, body: JsonBody) -> Response:
    """Create a video post for each account."""
    return await _create(request, context, owner, body, NewVideos)


@router.post("/v1/posts/slideshow", **_documented(NewSlideshows))
async def create_slideshows(request: Request, context: Here, owner: Writer, body: JsonBody) -> Response:
    """Create a post of slides for each account, to be rendered as a video if asked for."""
    return await _create(request, context, owner, body, NewSlideshows)


async def _create(
    request: Request, context: Context, owner: Key, body: object, model: type[NewVideos | NewSlideshows]
) -> Response:
    repeat = reading.repeat_of(request, owner.id, body)
    new: NewPostRequest | RedraftError
    try:
        reading.check_query(request)
        headers.refuse_preconditions(request)
        new = read(model, body).wanted()
    except RedraftError as problem:
        if repeat is None:
            raise
        new = problem
    created = await context.write(create, Asked(owner, new, repeat, context.config.horizon), unsure=UNSURE)
    context.ring(publishes=new_posts.publishes(created.posts), renders=new_posts.renders(created.posts))
    replayed = REPLAYED if created.replayed else None
    return Response(created.answer, 201, replayed, media_type="application/json")


def create(tx: Connection, asked: Asked) -> Created:
    """Create the posts and keep the key, or find what the first request with the key created. Raises RedraftError."""
    if (first := idempotency_store.wait_for(tx, asked.repeat)) is not None:
        return _repeated(first)
    if isinstance(asked.new, RedraftError):
        raise asked.new
    platforms, now = creation_store.platforms(tx, asked.owner.workspace_id, asked.new.account_ids)
    posts = new_posts.posts_of(asked.new, asked.owner.workspace_id, platforms, now, asked.horizon)
    answer = to_json({"posts": [public(post) for post in posts]}).decode()
    kept = Kept(*asked.repeat, new_id("creation"), answer) if asked.repeat else None
    if creation_store.insert_posts(tx, posts, kept):
        return Created(answer, posts)
    # A process of the version before, which takes no lock of keys, was first with this key.
    return _repeated(idempotency_store.first(tx, asked.repeat))


def _repeated(first: Kept | None) -> Created:
    if first is None or first.answer is None:
        raise IdempotencyKeyReused
    return Created(first.answer, [], replayed=True)
