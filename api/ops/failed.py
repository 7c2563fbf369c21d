"""Failed posts on the operators' pages: by class and last words with counts, and a retry of all posts of a group."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.context import context_of
from api.ops.forms import form, operator
from api.ops.frame import asked, html, message, page, read
from api.ops.post import retried
from shared.domain.failure_classes import MEANINGS, FailureClass
from shared.domain.times import format_exactly, parse_instant
from shared.store import failed_posts, failures

SHOWN: Final = 100
AT_ONCE: Final = 1000
"""Posts that one press of the button retries. The page says so if the group has more."""
TOGETHER: Final = 500
"""Posts in one transaction."""

LOOK_FIRST: Final = 'Look on the platform, then open each: its page has the button "It did not go out".'
KEYS_TOO_OLD: Final = (
    "may have gone out, and their keys are older than the publisher must remember: those are left as they are. "
    f"{LOOK_FIRST}"
)

_GROUP = re.compile(rf"[0-9a-f]{{32}}|{'|'.join(FailureClass)}", re.ASCII)
"""The address of a group: its id, or a class."""
_COUNT = re.compile(r"[0-9]{1,6}", re.ASCII)


@page("/ops/failed")
async def list_groups(request: Request) -> Response:
    """Why posts failed: by class, and by class with the last words; `unknown` first, then the most frequent."""
    found = await read(request, failed_posts.groups)
    notice, kind = _notice(request)
    return html(
        request,
        "failed.html",
        now=found.now,
        found=found,
        meanings=MEANINGS,
        notice=notice,
        notice_kind=kind,
    )


def _notice(request: Request) -> tuple[str | None, str]:
    """What a retry did, and how that looks: a warning where posts were left."""
    done, left, old = asked(request, "done") or "", asked(request, "left") or "0", asked(request, "old") or "0"
    if not all(_COUNT.fullmatch(count) for count in (done, left, old)):
        return None, "good"
    notice = f"{int(done):,} {'post is' if int(done) == 1 else 'posts are'} tried again."
    notice += f" {int(left):,} had changed or were locked elsewhere, and are left as they are." * (left != "0")
    notice += f" {int(old):,} {KEYS_TOO_OLD}" * (old != "0")
    return notice, "warn" if int(left) or int(old) else "good"


@page("/ops/failed/{group}")
async def show_group(request: Request) -> Response:
    """The posts of one group or class, and the button that puts them back."""
    return await _page(request)


async def _page(request: Request, notice: str | None = None, status: int = 200) -> Response:
    group = request.path_params["group"]
    if not _GROUP.fullmatch(group):
        return message(request, 404, "No such group", "There is no such group of failed posts.")
    # Posts that fail after this moment are not among those that the operator sees and agrees to.
    until = (await read(request, failed_posts.groups, None, 1)).now
    posts = await read(request, failed_posts.of_group, group, until, AT_ONCE + 1)
    now, batch = until, posts[:AT_ONCE]
    unsure = [post.id for post in batch if post.maybe_sent]
    too_old = len(await read(request, failures.keys_too_old, unsure)) if unsure else 0
    return html(
        request,
        "failed_group.html",
        status,
        now=now,
        notice=notice,
        notice_kind="warn",
        group=group,
        whole_class=group in MEANINGS,
        meanings=MEANINGS,
        posts=batch,
        shown=SHOWN,
        more=len(posts) > AT_ONCE,
        asked_again=len(unsure) - too_old,
        too_old=too_old,
        look_first=LOOK_FIRST,
        until=format_exactly(until),
        mark=failed_posts.mark(batch),
    )


@page("/ops/failed/{group}/retry", "POST")
async def retry_group(request: Request) -> Response:
    """Retry the posts that the operator saw. If the group has other posts by now, do nothing."""
    fields, group = await form(request), request.path_params["group"]
    until = parse_instant(fields.get("until", ""))
    if until is None or not _GROUP.fullmatch(group):
        return message(request, 400, "That did not work", "The form was incomplete. Open the page again.")
    batch = await read(request, failed_posts.of_group, group, until, AT_ONCE)
    if not batch or failed_posts.mark(batch) != fields.get("seen"):
        return await _page(request, "These posts have changed since you looked; look again.", 409)
    context, actor, done, too_old = context_of(request), operator(request), 0, 0
    for start in range(0, len(batch), TOGETHER):
        seen = {post.id: post.revision for post in batch[start : start + TOGETHER]}
        some, old = await retried(context, seen, actor)
        done, too_old = done + len(some), too_old + len(old)
    left = f"&left={len(batch) - done - too_old}" + (f"&old={too_old}" if too_old else "")
    return RedirectResponse(f"/ops/failed?done={done}{left}", 303)
