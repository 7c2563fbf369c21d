"""`redraft posts`: lists, late posts and why, and one post's history; post_retries.py has `retry`."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli.ages import RULE, parse_age
from shared.cli.holds import hold, resume
from shared.cli.places import ask_redis
from shared.cli.post_export import export
from shared.cli.post_history import lines_of
from shared.cli.post_publishing import publish
from shared.cli.post_retries import parse_since, retry, say_failed, say_groups
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo,
    echo_wrapped,
    find_workspace,
    refuse,
    say,
    say_json,
)

if TYPE_CHECKING:
    from shared.domain.reasons import Reason
    from shared.store.late import RenderTry
    from shared.store.operator_actions import ListedPost

app = typer.Typer(help="Posts: which are late, why one failed, another try, and holds.", no_args_is_help=True)

SHOWN: Final = 20
TRUNCATED: Final = "Only the first {:,} are shown; --limit shows more."


class PostStatus(StrEnum):
    """The lifecycle's Status once more, for typer, which wants it before anything heavy is imported."""

    PENDING_RENDER = "pending_render"
    GENERATED = "generated"
    POSTED = "posted"
    FAILED = "failed"


app.command("retry")(retry)
app.command("export")(export)
app.command("hold")(hold)
app.command("resume")(resume)
app.command("publish")(publish)


@app.command("list")
def list_posts(
    *,
    status: Annotated[
        PostStatus | None, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(PostStatus)}.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Failed posts whose class, last words or reason hold this.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Those that failed since then, UTC: 2026-03-01T12:00Z.")] = None,
    due: Annotated[
        str | None, typer.Option(help="Those that wait and go out within this time, like 24h; the next one first.")
    ] = None,
    held: Annotated[bool, typer.Option("--held", help="Those that wait and are held, the next one first.")] = False,
    workspace: Annotated[str | None, typer.Option(help="Those of this workspace, by id or name.")] = None,
    account: Annotated[str | None, typer.Option(help="Those of this account, by id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List posts by id, the last first; failed ones, the latest failure first, with class and last words of each."""
    from shared.store import due_posts, failed_posts  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import posts as posts_store  # noqa: PLC0415

    begins = parse_since(since)
    if status is not PostStatus.FAILED and (reason is not None or since is not None):
        refuse("--reason and --since are about failed posts: give --status failed too.")
    within = _within(due, status, held=held)
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace).id if workspace is not None else None
        if status is PostStatus.FAILED:
            found = failed_posts.find(
                tx, reason=reason, since=begins, workspace_id=home, account_id=account, limit=limit + 1
            )
            groups = failed_posts.groups(
                tx, since=begins, limit=SHOWN, reason=reason, workspace_id=home, account_id=account
            )
            now = posts_store.clock(tx)
        elif held or within is not None:
            listed = due_posts.listed(tx, within, workspace_id=home, account_id=account, limit=limit + 1)
    if status is PostStatus.FAILED:
        say_failed(found[:limit], now, as_json=as_json)
        truncated = len(found) > limit
        if found and not as_json:
            say_groups(groups)
    else:
        if within is None and not held:
            listed = _listed(data_dir, status, home, account, limit + 1)
        _say_posts(listed[:limit], as_json=as_json)
        truncated = len(listed) > limit
    if truncated:
        echo(TRUNCATED.format(limit), err=True)


def _within(due: str | None, status: PostStatus | None, *, held: bool) -> timedelta | None:
    if held and (status is not None or due is not None):
        refuse("--held is about all posts that wait: leave out --status and --due.")
    within = parse_age(due) if due is not None else None
    if due is not None and within is None:
        refuse(f"--due {due}: {RULE}.")
    if within is not None and status is not None:
        refuse("--due is about all posts that wait: leave out --status.")
    return within


def _listed(
    data_dir: Path, status: PostStatus | None, workspace_id: str | None, account_id: str | None, limit: int
) -> "list[ListedPost]":
    """The first posts of a list. A rare filter is looked for to the list's end."""
    from shared.store import operator_actions  # noqa: PLC0415 - heavy imports wait until the command runs

    found: list[ListedPost] = []
    place: str | None = None
    while True:
        # A transaction for each page: none of them may last long.
        with database(data_dir) as tx:
            page = operator_actions.posts(
                tx, status=status.value if status else None, workspace_id=workspace_id, account_id=account_id,
                limit=limit - len(found), after=place,
            )  # fmt: skip
        found += page.posts
        place = page.next_place
        if place is None or len(found) >= limit:
            return found


def _say_posts(listed: "list[ListedPost]", *, as_json: bool) -> None:
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - heavy imports wait until the command runs

    rows = [
        {
            "postId": post.id,
            "workspaceId": post.workspace_id,
            "accountId": post.account_id,
            "status": post.status,
            "scheduledTime": edit_histories.moment(post.scheduled_time),
        }
        for post in listed
    ]
    if not as_json:
        for row, post in zip(rows, listed, strict=True):
            row["scheduledTime"] = histories.away(post.scheduled_time, post.now)
    headings = {"postId": "post", "status": "status", "scheduledTime": "its time", "accountId": "account"}
    headings["workspaceId"] = "workspace"
    say(rows, headings, as_json=as_json, none="There are no such posts.")


@app.command("stuck")
def stuck(
    *,
    after: Annotated[float, typer.Option(min=0, help="Seconds after its time from which a post is late.")] = 10.0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List posts that should have gone out, the longest late first, and the reason for each."""
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import late as late_store  # noqa: PLC0415

    broker = ask_redis(data_dir)
    with database(data_dir) as tx:
        found = late_store.late_posts(tx, limit + 1, after, broker)
    late = found[:limit]
    rows = [
        {
            "postId": post.id,
            "workspaceId": post.workspace_id,
            "status": post.status,
            "scheduledTime": edit_histories.moment(post.scheduled_time),
            "localTime": histories.in_zone(post.scheduled_time, post.timezone),
            "lateSeconds": round(post.late_by.total_seconds(), 1),
            "why": post.reason.words,
        }
        | _reason_as_json(post.reason)
        for post in late
    ]
    if not as_json:
        for row, post in zip(rows, late, strict=True):
            row["lateSeconds"] = edit_histories.duration(post.late_by)
    headings = {"postId": "post", "lateSeconds": "late", "why": "why"}
    say(rows, headings, as_json=as_json, none="No post is late.", wraps="why")
    if len(found) > limit:
        echo(TRUNCATED.format(limit), err=True)


@app.command("show")
def show(
    post_id: Annotated[str, typer.Argument(metavar="POST", help="As lists, logs and Flower show it: post_…")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one post's history: its state, its latest tries and edits, and who retried it."""
    from shared.domain import edit_histories, histories, posts  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.domain.errors import printable  # noqa: PLC0415
    from shared.domain.fields import is_clean  # noqa: PLC0415
    from shared.store import acts, edit_lists, failed_posts, failures, keys, overview  # noqa: PLC0415
    from shared.store import holds as holds_store  # noqa: PLC0415
    from shared.store import late as late_store  # noqa: PLC0415
    from shared.store import posts as posts_store  # noqa: PLC0415
    from shared.store.edit_lists import EditFilter  # noqa: PLC0415

    if not is_clean(post_id):
        refuse(f"There is no post {printable(post_id)}.")
    broker = ask_redis(data_dir)
    with database(data_dir) as tx:
        found, now = posts_store.read_posts(tx, [post_id])
        account = keys.account(tx, found[post_id].account_id) if post_id in found else None
        tries = overview.tries(tx, post_id, SHOWN)
        edits = edit_lists.page(tx, EditFilter(post_id=post_id), limit=SHOWN).edits
        done = acts.of(tx, post_id, SHOWN)
        why = late_store.why(tx, [post_id], broker)
        failed = failed_posts.find(tx, ids=[post_id], limit=1)
        too_old = bool(failed and failures.keys_too_old(tx, [post_id]))
        rendered = late_store.last_render(tx, post_id)
        held = holds_store.effective(tx, [post_id]).get(post_id)
    post = found.get(post_id)
    if post is None or now is None:
        refuse(f"There is no post {post_id}.")
    shown = {
        "post": edit_histories.without_secrets(posts.detailed(post, held)) | {"deleted": post.facts.deleted},
        "accountName": account and account.name,
        "localTime": histories.in_zone(post.facts.scheduled_time, post.facts.timezone),
        "revision": post.facts.revision,
        "renderedUrl": edit_histories.without_secrets(post.facts.rendered_url),
        "why": why[post_id].words,
        **_reason_as_json(why[post_id]),
        "failure": {
            "class": failed[0].failure.value,
            "lastAnswer": failed[0].answer,
            "maybeSent": failed[0].maybe_sent,
            "keyTooOld": too_old,
        }
        if failed
        else None,
        "lastRender": rendered and _render_as_json(rendered),
        "claim": post.facts.claim,
        "claimExpiresAt": edit_histories.moment(post.claim_expires_at),
        "retryAt": edit_histories.moment(post.retry_at),
        "tries": [
            {
                "number": one.number,
                "key": one.idempotency_key,
                "startedAt": edit_histories.moment(one.started_at),
                "finishedAt": edit_histories.moment(one.finished_at),
                "outcome": one.outcome,
                "message": one.message,
                "forgiven": one.forgiven,
            }
            for one in tries
        ],
        "edits": [
            {"editId": edit.id, "status": edit.status, "createdAt": edit_histories.moment(edit.created_at)}
            for edit in edits
        ],
        "acts": [act.as_json() for act in done],
    }
    if as_json:
        say_json(shown)
        return
    for line in lines_of(post, shown, now):
        echo_wrapped(line, indent=18)


def _render_as_json(rendered: "RenderTry") -> dict[str, Any]:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    at = edit_histories.moment(rendered.answered_at)
    return {"outcome": rendered.outcome, "message": rendered.message, "answeredAt": at, "triesUsed": rendered.tries}


def _reason_as_json(reason: "Reason") -> dict[str, Any]:
    """The reason as `--json` shows it beside its words."""
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    return {
        "reason": reason.code,
        "triesUsed": reason.tries,
        "triesMost": reason.tries_most,
        "nextTryAt": edit_histories.moment(reason.next_at),
    }
