"""`redraft posts`: posts that are late, one post's story, and another try for those that failed (SPEC 6, 8)."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo,
    find_workspace,
    refuse,
    say,
    say_json,
)

if TYPE_CHECKING:
    from shared.posts import Post
    from shared.store.failures import FailedPost, Retried

app = typer.Typer(help="Posts: which are late, why one failed, and another try.", no_args_is_help=True)

TOGETHER: Final = 500
MOST: Final = 100_000
SHOWN: Final = 20
CLOSED: Final = "those are tried under their old keys, and closed to edits"
OPENED: Final = "you say that none of them did, which is kept with your name; those are open to edits"
TOLD: Final = {
    "due": "is due again",
    "closed": "may have gone out: it is tried again under its old key, closed to edits",
    "render": "is rendered again",
}


@app.command("stuck")
def stuck(
    *,
    after: Annotated[float, typer.Option(min=0, help="Seconds after its time from which a post is late.")] = 10.0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List posts that should have gone out, the longest late first, and what holds each up."""
    from shared import stories  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import overview  # noqa: PLC0415

    with database(data_dir) as tx:
        late = overview.late_posts(tx, limit, after)
    rows = [
        {
            "postId": post.id,
            "workspaceId": post.workspace_id,
            "status": post.status,
            "scheduledTime": stories.moment(post.scheduled_time),
            "lateSeconds": round((post.now - post.scheduled_time).total_seconds(), 1),
            "why": post.why(),
        }
        for post in late
    ]
    if not as_json:
        for row, post in zip(rows, late, strict=True):
            row["lateSeconds"] = stories.duration(post.now - post.scheduled_time)
    headings = {"postId": "post", "status": "status", "scheduledTime": "its time", "lateSeconds": "late", "why": "why"}
    say(rows, headings, as_json=as_json, none="No post is late.")


@app.command("show")
def show(
    post_id: Annotated[str, typer.Argument(metavar="POST", help="As lists, logs and Flower show it: post_…")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Tell one post's story: where it stands, its latest tries at going out, its latest edits, and who retried it."""
    from shared import posts, stories  # noqa: PLC0415 - as above
    from shared.store import acts, operations, overview  # noqa: PLC0415
    from shared.store import posts as posts_store  # noqa: PLC0415

    with database(data_dir) as tx:
        found, now = posts_store.read_posts(tx, [post_id])
        tries = overview.tries(tx, post_id, SHOWN)
        edits = operations.edits(tx, status=None, post_id=post_id, workspace_id=None, limit=SHOWN)
        done = acts.of(tx, post_id, SHOWN)
    post = found.get(post_id)
    if post is None or now is None:
        refuse(f"There is no post {post_id}.")
    story = {
        "post": stories.without_secrets(posts.detailed(post)) | {"deleted": post.facts.deleted},
        "revision": post.facts.revision,
        "renderedUrl": stories.without_secrets(post.facts.rendered_url),
        "claim": post.facts.claim,
        "claimExpiresAt": stories.moment(post.claim_expires_at),
        "retryAt": stories.moment(post.retry_at),
        "tries": [
            {
                "number": one.number,
                "key": one.idempotency_key,
                "startedAt": stories.moment(one.started_at),
                "finishedAt": stories.moment(one.finished_at),
                "outcome": one.outcome,
                "message": one.message,
                "forgiven": one.forgiven,
            }
            for one in tries
        ],
        "edits": [
            {"editId": edit.id, "status": edit.status, "createdAt": stories.moment(edit.created_at)} for edit in edits
        ],
        "acts": [
            {"at": stories.moment(act.at), "by": act.actor, "action": act.action, "before": act.before} for act in done
        ],
    }
    if as_json:
        say_json(story)
        return
    for line in _lines(post, story, now):
        echo(line)


def _lines(post: "Post", story: dict[str, Any], now: datetime) -> list[str]:
    from shared import stories  # noqa: PLC0415 - as above

    facts = post.facts
    lines = [f"{facts.id} in {post.workspace_id}: {'deleted, was ' if facts.deleted else ''}{facts.status}"]
    lines += [f"  {name:<15} {value}" for name, value in story["post"].items() if name not in {"postId", "status"}]
    lines.append(f"  {'revision':<15} {facts.revision}")
    if facts.claim is not None and post.claim_expires_at is not None:
        left = post.claim_expires_at - now
        until = f"for {stories.duration(left)} more" if left > timedelta(0) else "expired; rescue takes it over"
        lines.append(f"  {'claim':<15} {facts.claim}, {until}")
    if post.retry_at is not None:
        lines.append(f"  {'next try':<15} {story['retryAt']}")
    if story["tries"]:
        lines.append("Its latest tries at going out:")
    for one in story["tries"]:
        ended = f"{one['outcome'] or 'not ended'}{': ' + one['message'] if one['message'] else ''}"
        lines.append(f"  {one['startedAt']} try {one['number']} of {one['key']}: {ended}")
    if story["edits"]:
        lines.append("Its latest edits (redraft edits show EDIT tells more):")
    lines += [f"  {edit['createdAt']} {edit['editId']} {edit['status']}" for edit in story["edits"]]
    if story["acts"]:
        lines.append("What was done to it:")
    for act in story["acts"]:
        reason = act["before"].get("failureReason")
        why = f" (it had failed: {reason})" if reason else ""
        lines.append(f"  {act['at']} {act['action'].replace('_', ' ')} by {act['by']}{why}")
    if facts.status == "failed":
        lines.append(f"\nAnother try: redraft posts retry {facts.id}")
    return lines


@app.command("retry")
def retry(
    post_ids: Annotated[list[str] | None, typer.Argument(metavar="POST...", help="These posts.")] = None,
    *,
    reason: Annotated[str | None, typer.Option(help="Posts whose reason holds these words.")] = None,
    since: Annotated[str | None, typer.Option(help="Those that failed since then, UTC: 2026-03-01T12:00Z.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Those of this workspace, by id or name.")] = None,
    account: Annotated[str | None, typer.Option(help="Those of this account, by id.")] = None,
    not_sent: Annotated[
        bool, typer.Option("--not-sent", help="You know that none of them went out: they come back open to edits.")
    ] = False,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Put failed posts back to due. One that may have gone out is asked about again under its old key."""
    from shared.store import failures  # noqa: PLC0415 - as above

    if bool(post_ids) == any(given is not None for given in (reason, since, workspace, account)):
        refuse("Which posts? Name them, or say which with --reason, --since, --workspace and --account.")
    if as_json and not yes:
        refuse("--json asks no questions: give --yes too.")
    begins = _since(since)
    wanted = list(dict.fromkeys(post_ids or []))
    with database(data_dir) as tx:
        workspace_id = find_workspace(tx, workspace).id if workspace is not None else None
        found = failures.failed_posts(
            tx, ids=wanted or None, reason=reason, since=begins, workspace_id=workspace_id, account_id=account,
            limit=MOST,
        )  # fmt: skip
    known = {post.id for post in found}
    missing = [post_id for post_id in wanted if post_id not in known]
    if missing:
        echo(f"{' '.join(missing)} did not fail; `redraft posts show POST` says how one stands.", err=True)
    if found and not as_json:
        _preview(found, not_sent=not_sent)
        if not yes:
            typer.confirm(f"Try {'it' if len(found) == 1 else f'all {len(found):,}'} again?", abort=True)
    done = _retry({post.id: post.revision for post in found}, data_dir, operator_name(by), not_sent=not_sent)
    left = sorted(known - {one.post_id for one in done})
    if as_json:
        told = [{"postId": one.post_id, "done": True, "back": one.back} for one in done]
        say_json(told + [{"postId": post_id, "done": False, "back": None} for post_id in missing + left])
    else:
        _tell(done, len(found), left)
    if missing or left:
        raise typer.Exit(1)


def _tell(done: "list[Retried]", found: int, left: list[str]) -> None:
    for one in done[:SHOWN]:
        echo(f"{one.post_id} {TOLD[one.back]}.")
    echo(f"{len(done):,} of {found:,} failed posts are tried again.")
    if left:
        echo(f"{len(left):,} were held by somebody or have changed; try again: {' '.join(left[:SHOWN])}", err=True)


def _since(given: str | None) -> datetime | None:
    from shared.times import parse_instant  # noqa: PLC0415 - as above

    if given is None:
        return None
    since = parse_instant(given)
    if since is None:
        refuse(f"--since takes a time in UTC, as 2026-03-01T12:00Z, not {given!r}.")
    return since


def _preview(found: "list[FailedPost]", *, not_sent: bool) -> None:
    from shared import stories  # noqa: PLC0415 - as above

    rows = [
        {
            "postId": post.id,
            "workspaceId": post.workspace_id,
            "failedAt": stories.moment(post.failed_at) or "",
            "scheduledTime": stories.moment(post.scheduled_time),
            "reason": post.reason if post.answer in {None, post.reason} else f"{post.reason} ({post.answer})",
        }
        for post in found[:SHOWN]
    ]
    headings = {"postId": "post", "failedAt": "failed", "scheduledTime": "its time", "reason": "reason"}
    say(rows, headings, as_json=False, none="")
    if len(found) > SHOWN:
        echo(f"and {len(found) - SHOWN:,} more")
    echo(f"{len(found):,} failed post{'' if len(found) == 1 else 's'}.")
    unsure = sum(post.maybe_sent for post in found)
    if unsure:
        echo(f"{unsure:,} of them may have gone out: {OPENED if not_sent else CLOSED}.")


def _retry(seen: dict[str, int], data_dir: Path, by: str, *, not_sent: bool) -> "list[Retried]":
    """Some hundred posts in a transaction, rung for below its commit. Posts that somebody holds are left out, and those
    whose revision is no longer the one that the operator has `seen`: a try may have been made since.
    """
    from shared import queue  # noqa: PLC0415 - as above
    from shared.store import failures  # noqa: PLC0415
    from shared.store import posts as posts_store  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    done: list[Retried] = []
    found, post_ids = parts(data_dir), list(seen)
    for start in range(0, len(post_ids), TOGETHER):
        with database(data_dir) as tx:
            locked = posts_store.lock_posts(tx, post_ids[start : start + TOGETHER], "skip")
            same = [post for post_id, post in locked.items() if post.facts.revision == seen[post_id]]
            some = failures.retry(tx, same, Actor(by), not_sent=not_sent)
        done += some
        if found.redis_url:
            # What is not rung for, rescue and dispatch find within seconds.
            with reaching(found):
                due = [one for one in some if one.at is None]
                queue.enqueue_publish([(one.post_id, one.revision, None) for one in due if one.back != "render"])
                queue.enqueue_renders([(one.post_id, one.revision) for one in some if one.back == "render"])
    return done
