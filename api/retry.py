"""POST /v1/posts/{postId}/retry: one failed post back to due, as `redraft posts retry` does."""

from typing import Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from api import posts
from api.context import Here, Writer, storable
from api.http import problems
from api.http.json_answer import JsonAnswer
from api.http.problems import request_id
from api.http.reading import NoBody, NoQuery
from api.models.openapi import carries, takes
from api.models.posts import PostDetails
from api.models.reschedules import Nothing
from shared.domain.errors import Conflict, Detail, NotFound
from shared.domain.holds import Hold
from shared.domain.lifecycle import Status, etag
from shared.domain.posts import Post, detailed
from shared.store import failures, reads
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store.acts import Actor
from shared.store.failures import Retried
from shared.store.keys import Key

router = APIRouter(tags=["posts"], responses=problems.LOCKED)

UNSURE: Final = "The post may be back to work; look at GET /v1/posts/{postId} before you send this again"


@router.post(
    f"{posts.ONE}/retry",
    response_model=PostDetails,
    responses={200: carries("ETag"), **problems.refuses(404, 409, 413, 415)},
    openapi_extra=takes(body=Nothing),
)
async def retry_post(post_id: str, context: Here, key: Writer, _body: NoBody, _: NoQuery) -> Response:
    """Put one failed post back to due. A post that may have gone out keeps its old key, and is closed to edits."""
    if not storable(post_id):
        raise NotFound.post(post_id)
    back, post, hold = await context.write(retry, key, post_id, request_id.get(), unsure=UNSURE)
    publishes, renders = failures.to_ring([back])
    context.ring(publishes=publishes, renders=renders)
    return JsonAnswer(detailed(post, hold), headers={"ETag": etag(post.facts.revision)})


def retry(tx: Connection, key: Key, post_id: str, asked_by: str) -> tuple[Retried, Post, Hold | None]:
    """Lock, recheck, put back. Returns the post and its hold as they are then, too. Raises NotFound, Conflict.

    Another workspace's post is never locked: it could notice even a lock.
    """
    if reads.post(tx, key.workspace_id, post_id) is None:
        raise NotFound.post(post_id)
    holds_store.lock_in_share(tx, [post_id])
    locked = posts_store.lock_posts(tx, [post_id], "wait")
    done = failures.retry(tx, locked.values(), Actor(key.name, key.id, asked_by))
    if not done:
        status = locked[post_id].facts.status
        message = "Only posts with status 'failed' can be retried"
        if status is Status.FAILED and failures.held_and_unsure(tx, [post_id]):
            message = f"Post {post_id} {failures.HELD_AND_UNSURE}"
        elif status is Status.FAILED and failures.keys_too_old(tx, [post_id]):
            message = f"Post {post_id} {failures.KEY_TOO_OLD}. {failures.LOOK_FIRST.format(post_id)}"
        raise Conflict(message, details=[Detail("status", status.value)])
    now, _ = posts_store.read_posts(tx, [post_id])
    return done[0], now[post_id], holds_store.effective(tx, [post_id]).get(post_id)
