"""The operators' page at /ops: what Flower cannot show, and what an operator may do about it (docs/operations.md).

Rendered here from the files in templates/, without a build step. Pages load nothing from another host.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of

# Its routes come before the one for all other addresses below.
from api.ops import edits as ops_edits  # noqa: F401
from api.ops import failed as ops_failed  # noqa: F401
from api.ops import history as ops_history  # noqa: F401
from api.ops import holds as ops_holds  # noqa: F401
from api.ops import jobs as ops_jobs  # noqa: F401
from api.ops import late as ops_late  # noqa: F401
from api.ops import mending as ops_mending  # noqa: F401
from api.ops import plots as ops_plots
from api.ops import post as ops_post  # noqa: F401
from api.ops import post_holds as ops_post_holds  # noqa: F401
from api.ops import webhooks as ops_webhooks  # noqa: F401
from api.ops.frame import STATIC, asked, html, message, page, perhaps, read, router
from api.ops.redis_answers import of_redis
from shared.domain import waits
from shared.domain.errors import printable
from shared.domain.failure_classes import MEANINGS, SET_UP_WRONGLY, answers_alike, counted_words
from shared.domain.waits import Broker, Session
from shared.store import (
    edit_lists,
    failed_posts,
    health,
    hold_lists,
    operator_actions,
    overview,
    senders,
    webhook_backlogs,
)
from shared.store import late as late_store
from shared.store.edit_lists import EditFilter
from shared.store.operator_actions import Found

__all__ = ["router"]

FEW = 10
SESSIONS = 3
LOOKED_AT = 1000
SEARCHED = 10_000
IDS_AT_ONCE = 20


@page("/ops")
async def show_overview(request: Request) -> Response:
    """The overview."""
    broker = await of_redis()
    began = datetime.now(UTC)
    summary, failed, late, jobs, backlogs, sessions = await asyncio.gather(
        perhaps(request, overview.summary),
        perhaps(request, edit_lists.page, EditFilter(status="failed"), None, FEW),
        perhaps(request, late_store.late_posts, FEW, overview.LATE_AFTER, broker),
        perhaps(request, overview.jobs, FEW // 2),
        perhaps(request, webhook_backlogs.backlogs, FEW + 1),
        perhaps(request, health.long_sessions, waits.SESSION_IDLE, waits.SESSION_LONG),
    )
    ended = datetime.now(UTC)
    now = summary.now if summary else ended
    refused = await perhaps(request, failed_posts.groups, None, FEW // 2)
    of_a_day = await perhaps(request, failed_posts.classes, now - timedelta(days=1)) or []
    troubles = _around(broker, sessions or [], webhooks=bool(context_of(request).config.webhook_url))
    if (clock := waits.clock_trouble(began, now, ended)) is not None:
        troubles.append(("bad", clock))
    troubles += await perhaps(request, _troubles) or []
    held = await perhaps(request, hold_lists.sums)
    if held is not None and held.words:
        troubles.append(("warn", held.words))
    webhooks = await perhaps(request, webhook_backlogs.overall)
    minutes = await perhaps(request, overview.last_hour, now)
    busiest = await perhaps(request, senders.busiest, now)
    oldest = now - summary.oldest if summary and summary.oldest else None
    if busiest and busiest.flood and (flood := busiest.flood.said(oldest)) is not None:
        troubles.append(("warn", f"{flood[0]}. {flood[1]}"))
    lateness = await perhaps(request, overview.lateness, now)
    return html(
        request,
        "overview.html",
        now=now,
        summary=summary,
        failed=failed.edits if failed is not None else None,
        refused=refused,
        troubles=troubles,
        failed_classes=[one for one in of_a_day if one.failure in SET_UP_WRONGLY],
        meanings=MEANINGS,
        late=late,
        jobs=jobs,
        backlogs=backlogs,
        few=FEW,
        webhooks=webhooks,
        webhooks_late=webhook_backlogs.LATE_AFTER,
        depths=broker.waiting,
        busiest=busiest,
        plots=ops_plots.of(minutes, lateness, now),
    )


_MENDED = "Posts are tried for an hour. When it is well again, a button under Late posts tries them at once."


def _around(broker: Broker, sessions: Sequence[Session], *, webhooks: bool) -> list[tuple[str, str]]:
    """(how it looks, in words) of what keeps work waiting: Redis, queues without a worker, sessions with open
    transactions. `webhooks`: whether there is a receiver.
    """
    found = [("bad", words) for words in waits.troubles(broker, webhooks=webhooks)]
    return found + [("bad" if one.blocks else "warn", f"{one.words}. {one.todo}") for one in sessions[:SESSIONS]]


def _troubles(tx: Connection) -> list[tuple[str, str]]:
    """(how it looks, in words) of each service that answers every post alike, or whose latest tries failed."""
    answers = {"publisher": health.publisher_answers(tx, LOOKED_AT), "renderer": health.renderer_answers(tx, LOOKED_AT)}
    found = []
    for service, said in answers.items():
        count, words = health.set_up_wrongly(said)
        if count:
            what = f"Check its URL, REDRAFT_SERVICE_SECRET and what it needs to log in. {_MENDED}"
            found.append(("bad", f"{answers_alike(service, words, count)} {what}"))
        count, groups = health.failing(said)
        if count:
            posts = "1 post" if count == 1 else f"{count:,} posts"
            failed = f"The latest try of the {service} failed for {posts}: {counted_words(groups, count)}"
            failed += "" if failed.endswith("…") else "."
            found.append(("warn", f"{failed} Look into the {service} and its log. {_MENDED}"))
    return found


_ID = re.compile(r"[a-z]{2,12}_[0-9A-Za-z]+(?:_[0-9A-Za-z]+)*|[0-9A-Za-z]{6,64}", re.ASCII)
# What api/http/request_id.py takes for one.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:@+/=-]{3,128}", re.ASCII)


@page("/ops/search")
async def search(request: Request) -> Response:
    """Find ids in any text, such as a task's arguments in Flower, or the id of a request."""
    given = asked(request, "q") or ""
    ids = list(dict.fromkeys(_ID.findall(given[:SEARCHED])))[:IDS_AT_ONCE]
    requests = list(dict.fromkeys([*_REQUEST_ID.findall(given[:SEARCHED]), *ids]))[: 2 * IDS_AT_ONCE]
    found = await read(request, _find, ids, requests) if ids or requests else []
    if len(found) == 1:
        return RedirectResponse(found[0][2], 303)
    return html(request, "found.html", 200 if found else 404, q=printable(given, 200) if given else None, found=found)


def _find(tx: Connection, ids: list[str], requests: list[str]) -> list[tuple[str, str, str]]:
    """(kind, id, page) of everything with these ids, given with or without their prefix, or of these requests."""
    wanted = [name for one in ids for name in ((one,) if "_" in one else (f"post_{one}", f"edit_{one}"))]
    found = operator_actions.find(tx, wanted, requests)
    return [(one.kind, one.id, _address(one)) for one in found]


def _address(found: Found) -> str:
    if found.page == "requests":
        return f"/ops/edits?{urlencode({'request': found.opens})}"
    return f"/ops/{found.page}/{quote(found.opens)}"


@page("/ops/{rest:path}")
async def anything_else(request: Request) -> Response:
    """The static files of the pages, and a 404 for all other addresses."""
    name = request.path_params["rest"]
    if name in STATIC:
        kind, text = STATIC[name]
        return Response(text, headers={"Cache-Control": "private, max-age=86400"}, media_type=kind)
    if not name:
        return RedirectResponse("/ops", 308)
    return message(request, 404, "No such page", "There is nothing at this address.")
