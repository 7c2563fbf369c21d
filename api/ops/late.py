"""Late posts on the operators' pages, and another try at once for those that wait for a service that is well again."""

from collections import Counter
from typing import Final

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of
from api.ops.forms import form, operator
from api.ops.frame import asked, html, number, page, perhaps, read
from api.ops.redis_answers import of_redis
from shared.store import late as late_store
from shared.store import next_tries, overview
from shared.store.next_tries import TriedNow, Waiting

SHOWN: Final = 200
AT_ONCE: Final = 1000
"""Posts that one press of the button tries. It is pressed again for more."""
TOGETHER: Final = 500
"""Posts in one transaction."""
PATH: Final = "/ops/late/try-now"
UNSURE: Final = "PostgreSQL did not answer in time. Some posts may be tried now: look at the page first."

log = structlog.get_logger(__name__)


def _waiting(tx: Connection) -> list[Waiting]:
    return next_tries.waiting(tx, AT_ONCE)


@page("/ops/late")
async def list_late(request: Request) -> Response:
    """Posts that should have gone out, and how many of them could be tried at once."""
    late = await read(request, late_store.late_posts, SHOWN + 1, overview.LATE_AFTER, await of_redis())
    waiting = await perhaps(request, _waiting) or []
    done = number(asked(request, "done"))
    return html(
        request,
        "late.html",
        now=late[0].now if late else None,
        notice=None if done is None else f"{done:,} {'post is' if done == 1 else 'posts are'} tried now.",
        late=late[:SHOWN],
        more=len(late) > SHOWN,
        late_after=int(overview.LATE_AFTER),
        waiting=len(waiting),
        answers=Counter(one.words or "no words" for one in waiting).most_common(5),
        at_once=AT_ONCE,
    )


@page(PATH, "POST")
async def try_now(request: Request) -> Response:
    """End the waits of posts between two tries. A second press finds none of them."""
    await form(request)
    context, actor, done = context_of(request), operator(request), 0
    ids = [one.post_id for one in await read(request, _waiting)]
    for start in range(0, len(ids), TOGETHER):
        tried: TriedNow = await context.write(next_tries.try_now, ids[start : start + TOGETHER], actor, unsure=UNSURE)
        publishes = [(post_id, revision, None) for post_id, revision in tried.publishes]
        context.ring(publishes=publishes, renders=tried.renders)
        done += len(tried.publishes) + len(tried.renders)
    log.info("operator_decided", done="tried_now", posts=done, by=actor.name)
    return RedirectResponse(f"/ops/late?done={done}", 303)
