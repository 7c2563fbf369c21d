"""One post's history on the operators' pages, and its retry if it failed."""

from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import quote

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import Context, context_of
from api.ops import post_holds
from api.ops.forms import form, operator
from api.ops.frame import asked, asked_for, html, named, number, page, read_named
from api.ops.redis_answers import of_redis
from shared.domain.edit_histories import EditHistory
from shared.domain.edits import PLAIN
from shared.domain.holds import REASON_MAX, Hold
from shared.domain.lifecycle import PostFacts, Status
from shared.domain.posts import Post
from shared.domain.reasons import Reason
from shared.domain.waits import Broker
from shared.store import acts as acts_store
from shared.store import edit_lists, failed_posts, failures, keys, overview
from shared.store import holds as holds_store
from shared.store import late as late_store
from shared.store import posts as posts_store
from shared.store.acts import Actor, Recorded
from shared.store.edit_lists import EditFilter
from shared.store.failed_posts import FailedPost
from shared.store.failures import Retried
from shared.store.keys import Account
from shared.store.late import RenderTry

FEW, MOST = 10, 50
UNSURE: Final = "PostgreSQL did not answer in time. The retry may have been done: look at the posts first."
DONE: Final = post_holds.DONE | {
    "due": "It is due again, and open to edits.",
    "closed": "It may have gone out: it is tried again under its old key, and is closed to edits.",
    "render": "It is rendered again.",
}
TOO_OLD: Final = (
    f"It {failures.KEY_TOO_OLD}. So the publisher is not asked again. Look at the platform first. If it did not go "
    'out, press "It did not go out".'
)

log = structlog.get_logger(__name__)


class _History(NamedTuple):
    """All that the page shows, newest first, and one more of each list. `failed`: why and how, of a failed post;
    `rendered`: its last render, where that did not end well. `key_too_old`: it may have gone out, under a key that is
    not used any more. `hold`: the one that counts.
    """

    post: Post
    now: datetime
    edits: list[EditHistory]
    tries: list[overview.Try]
    acts: list[Recorded]
    reason: Reason
    failed: FailedPost | None
    rendered: RenderTry | None
    key_too_old: bool
    account: Account | None
    hold: Hold | None


@page("/ops/posts/{post_id}")
async def show_post(request: Request) -> Response:
    """One post's history: its edits, its tries and the operators' acts on it, in the order of time."""
    return await _page(request, DONE.get(asked(request, "done") or ""))


async def _page(request: Request, notice: str | None = None, kind: str = "good", status: int = 200) -> Response:
    found = await read_named(request, "post", _history_of, await of_redis())
    facts = found.post.facts
    past = (found.now - found.post.due_at()).total_seconds() > overview.LATE_AFTER
    late = _waits(facts) and (past or (found.reason.code == "edit_waits" and found.reason.next_at is None))
    return html(
        request,
        "post.html",
        status,
        notice=notice,
        notice_kind=kind,
        plain_fields=PLAIN,
        late=late,
        maybe_sent=found.failed is not None and found.failed.maybe_sent,
        timeline=_timeline(found),
        truncated=any(len(one) > MOST for one in (found.edits, found.tries, found.acts)),
        waits=_waits(facts),
        hold_mark=post_holds.mark(found.hold),
        reason_max=REASON_MAX,
        **found._replace(edits=found.edits[:FEW], tries=found.tries[:MOST], acts=found.acts[:MOST])._asdict(),
    )


def _history_of(tx: Connection, post_id: str, broker: Broker) -> _History | None:
    found, now = posts_store.read_posts(tx, [post_id])
    if now is None or post_id not in found:
        return None
    post, failed = found[post_id], failed_posts.find(tx, ids=[post_id], limit=1)
    return _History(
        post,
        now,
        edit_lists.page(tx, EditFilter(post_id=post_id), limit=MOST + 1).edits,
        overview.tries(tx, post_id, MOST + 1),
        acts_store.of(tx, post_id, MOST + 1),
        late_store.why(tx, [post_id], broker)[post_id],
        failed=failed[0] if failed else None,
        rendered=late_store.last_render(tx, post_id),
        key_too_old=bool(failed and failures.keys_too_old(tx, [post_id])),
        account=keys.account(tx, post.account_id),
        hold=holds_store.effective(tx, [post_id]).get(post_id),
    )


@page("/ops/posts/{post_id}/retry", "POST")
async def retry(request: Request) -> Response:
    """Retry a failed post, if it has not changed since the operator saw it."""
    return await _retry(request, not_sent=False)


@page("/ops/posts/{post_id}/retry-not-sent", "POST")
async def retry_not_sent(request: Request) -> Response:
    """The same, with the operator's statement that the post did not go out: it is open to edits then."""
    return await _retry(request, not_sent=True)


async def _retry(request: Request, *, not_sent: bool) -> Response:
    fields, post_id = await form(request), named(request, "post")
    seen = {post_id: number(fields.get("seen")) or 0}
    done, too_old = await retried(context_of(request), seen, operator(request), not_sent=not_sent)
    if too_old and not not_sent:
        return await _page(request, TOO_OLD, "warn", 409)
    if not done:
        return await _page(request, "It has changed since you looked, or is locked elsewhere; look again.", "warn", 409)
    return RedirectResponse(f"/ops/posts/{quote(post_id)}?done={done[0].back}", 303)


async def retried(
    context: Context, seen: dict[str, int], actor: Actor, *, not_sent: bool = False
) -> tuple[list[Retried], list[str]]:
    """Retry these posts in one transaction, each only at the revision in `seen`, and ring for them below the commit.

    Returned too: those that stay as they are since they may have gone out and their keys are too old.
    """

    def put_back(tx: Connection) -> tuple[list[Retried], list[str]]:
        done = failures.retry_unchanged(tx, seen, actor, not_sent=not_sent)
        return done, failures.keys_too_old(tx, seen.keys() - {one.post_id for one in done})

    done, too_old = await context.write(put_back, unsure=UNSURE)
    log.info("operator_decided", done="retried", posts=len(done), not_sent=not_sent, by=actor.name)
    publishes, renders = failures.to_ring(done)
    context.ring(publishes=publishes, renders=renders)
    return done, too_old


def _waits(facts: PostFacts) -> bool:
    return facts.status in (Status.GENERATED, Status.PENDING_RENDER) and not facts.deleted


def _timeline(found: _History) -> list[tuple[datetime, str, str, str | None]]:
    """(when, how it looks, what happened, where to read on), the oldest first."""
    kinds = {"applied": "good", "failed": "bad", "rejected": "warn", "done": "good", "refused": "bad", "unknown": "bad"}
    lines: list[tuple[datetime, str, str, str | None]] = [(found.post.created_at, "", "created", None)]
    for edit in found.edits[:MOST]:
        link, name = f"/ops/edits/{quote(edit.id)}", f"{asked_for(edit.changes)} by {edit.requested_by}"
        if edit.finalized_at is None:
            lines.append((edit.created_at, "warn", f"edit accepted, and waiting: {name}", link))
        else:
            lines.append((edit.finalized_at, kinds.get(edit.status, ""), f"edit {edit.status}: {name}", link))
    for one in found.tries[:MOST]:
        lines.append((one.started_at, "", f"publish, try {one.number}", None))
        if one.finished_at is not None:
            outcome = (one.outcome or "").replace("_", " ")
            said = f": {one.message}" if one.message else ""
            lines.append(
                (one.finished_at, kinds.get(one.outcome or "", "warn"), f"try {one.number} {outcome}{said}", None)
            )
    if (render := found.rendered) is not None:
        said = f": {render.message}" if render.message else ""
        words = f"render {render.outcome.replace('_', ' ')}{said}"
        lines.append((render.answered_at, kinds.get(render.outcome, "warn"), words, None))
    lines += [(act.at, "", act.words(), None) for act in found.acts[:MOST]]
    return sorted(lines, key=lambda one: one[0])
