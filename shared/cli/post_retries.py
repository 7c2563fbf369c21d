"""`redraft posts retry`: another try for posts that failed, of one and of many, with the count first."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.post_next_tries import try_waiting
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
    from collections.abc import Sequence

    from shared.store.failed_posts import FailedGroups, FailedPost
    from shared.store.failures import Retried

TOGETHER: Final = 500
MOST: Final = 100_000
SHOWN: Final = 20
NAMED: Final = 5
"""Posts that are named after a retry. Of more than these the sum is enough."""
GROUPS: Final = 5
CLOSED: Final = "those are tried under their old keys, and closed to edits"
TOO_OLD: Final = "the key is older than the publisher must remember, and it is not asked again without --not-sent"
NOT_SENT: Final = "If you know that it did not go out: --not-sent."
OPENED: Final = "you say that none of them did, which is kept with your name; those are open to edits"
WORDS: Final = {
    "due": "is due again",
    "closed": "may have gone out: it is tried again under its old key, closed to edits",
    "render": "is rendered again",
}


def retry(
    post_ids: Annotated[list[str] | None, typer.Argument(metavar="POST...", help="These posts.")] = None,
    *,
    reason: Annotated[
        str | None, typer.Option(help="Posts whose class, last words or reason hold this, as lists show it.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Those that failed since then, UTC: 2026-03-01T12:00Z.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Those of this workspace, by id or name.")] = None,
    account: Annotated[str | None, typer.Option(help="Those of this account, by id.")] = None,
    waiting: Annotated[
        bool,
        typer.Option("--waiting", help="Not failed posts, but those that wait for their next try: try now."),
    ] = False,
    not_sent: Annotated[
        bool, typer.Option("--not-sent", help="You know that none of them went out: they come back open to edits.")
    ] = False,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Put failed posts back to due. One that may have gone out is asked about again under its old key.

    With --waiting: end the waits of posts whose service could not be reached, failed or was set up wrongly.
    """
    if waiting:
        if not_sent or since is not None:
            refuse("--waiting means posts that have not failed: leave out --not-sent and --since.")
        check = (reason, workspace, account)
        try_waiting(post_ids or [], *check, by=operator_name(by), yes=yes, data_dir=data_dir, as_json=as_json)
        return
    from shared.store import failed_posts, failures  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import posts as posts_store  # noqa: PLC0415

    if bool(post_ids) == any(given is not None for given in (reason, since, workspace, account)):
        refuse("Which posts? Name them, or say which with --reason, --since, --workspace and --account.")
    _check(reason, as_json=as_json, yes=yes)
    begins = parse_since(since)
    wanted = list(dict.fromkeys(post_ids or []))
    with database(data_dir) as tx:
        workspace_id = find_workspace(tx, workspace).id if workspace is not None else None
        found = failed_posts.find(
            tx, ids=wanted or None, reason=reason, since=begins, workspace_id=workspace_id, account_id=account,
            limit=MOST,
        )  # fmt: skip
        now = posts_store.clock(tx)
        unsure = [post.id for post in found if post.maybe_sent and not (as_json or not_sent)]
        to_leave = failures.keys_too_old(tx, unsure) if unsure else []
        known = {post.id for post in found}
        missing = [post_id for post_id in wanted if post_id not in known]
        there = set(posts_store.read_posts(tx, missing)[0]) if missing else set()
    _say_missing(missing, there)
    if not as_json:
        if not found:
            _none(wanted, reason)
        preview(found, now, not_sent=not_sent, to_leave=to_leave)
        if not yes:
            typer.confirm(_question(len(found), len(to_leave)), abort=True)
    seen = {post.id: post.revision for post in found}
    done, too_old = _retry(seen, data_dir, operator_name(by), not_sent=not_sent)
    left = sorted(known - {one.post_id for one in done} - set(too_old))
    if as_json:
        kept = {
            "no_such_post": [post_id for post_id in missing if post_id not in there],
            "did_not_fail": [post_id for post_id in missing if post_id in there],
            "changed_or_locked": left,
            "key_too_old": too_old,
        }
        _say_as_json(done, kept)
    else:
        _tell(done, len(found), left, too_old)
    if missing or left or too_old:
        raise typer.Exit(1)


def _check(reason: str | None, *, as_json: bool, yes: bool) -> None:
    """Exits with 2 for a reason that means every post, and for questions that no script answers."""
    if reason is not None and not reason.strip():
        refuse(
            "--reason is empty, and would match every failed post. Say a part of what the list shows, or leave it out."
        )
    if as_json and not yes:
        refuse("--json asks no questions: give --yes too.")


def _say_missing(missing: list[str], there: set[str]) -> None:
    """Name the posts that did not fail. `there`: those of them that exist."""
    for post_id in missing:
        if post_id not in there:
            echo(f"There is no post {post_id}.", err=True)
    if there:
        some = " ".join(post_id for post_id in missing if post_id in there)
        echo(f"{some} did not fail; `redraft posts show POST` says how one stands.", err=True)


def _say_as_json(done: "list[Retried]", kept: dict[str, list[str]]) -> None:
    rows = [{"postId": one.post_id, "done": True, "back": one.back, "why": None} for one in done]
    ids = [(post_id, why) for why, some in kept.items() for post_id in some]
    say_json(rows + [{"postId": post_id, "done": False, "back": None, "why": why} for post_id, why in ids])


def _none(wanted: list[str], reason: str | None) -> NoReturn:
    """End the command where no failed post is meant."""
    if wanted:
        raise typer.Exit(1)
    echo(f'No failed post has "{reason}" in class, last words or reason.' if reason else "No failed post matches.")
    raise typer.Exit(0)


def _question(found: int, to_leave: int) -> str:
    if to_leave:
        return f"Try {found - to_leave:,} of {found:,} again?"
    return "Try it again?" if found == 1 else f"Try all {found:,} again?"


def _some(post_ids: list[str]) -> str:
    return " ".join(post_ids[:SHOWN]) + (" …" if len(post_ids) > SHOWN else "")


def _tell(done: "list[Retried]", found: int, left: list[str], too_old: list[str]) -> None:
    from shared.store import failures  # noqa: PLC0415 - as above

    if len(done) <= NAMED:
        for one in done:
            echo_wrapped(f"{one.post_id} {WORDS[one.back]}.")
    echo(f"{len(done):,} of {found:,} failed posts are tried again.")
    if left:
        some = " ".join(left[:SHOWN])
        echo_wrapped(f"{len(left):,} are locked by another session or have changed; try again: {some}", err=True)
    if too_old:
        count = "1 is left as it is: it" if len(too_old) == 1 else f"{len(too_old):,} are left as they are: each"
        echo_wrapped(f"{count} {failures.KEY_TOO_OLD}. {failures.LOOK_FIRST.format(_some(too_old))}", err=True)


def parse_since(given: str | None, option: str = "--since") -> datetime | None:
    """The time that an option names; None without it. Exits with 2 for what is no time."""
    from shared.domain.times import parse_instant  # noqa: PLC0415 - as above

    if given is None:
        return None
    since = parse_instant(given)
    if since is None:
        refuse(f"{option} takes a time in UTC, as 2026-03-01T12:00Z, not {given!r}.")
    return since


def preview(found: "list[FailedPost]", now: datetime, *, not_sent: bool, to_leave: list[str]) -> None:
    """Show what a retry would put back, before asking. `to_leave`: posts that stay failed since their keys are too old.
    Exits with 1 if all of them do.
    """
    from shared.store import failed_posts, failures  # noqa: PLC0415 - as above

    say_failed(found[:SHOWN], now, as_json=False)
    if len(found) > SHOWN:
        echo(f"and {len(found) - SHOWN:,} more")
    echo(f"{len(found):,} failed post{'' if len(found) == 1 else 's'}.")
    groups = Counter(failed_posts.label(post) for post in found)
    for label, count in groups.most_common(GROUPS):
        echo_wrapped(f"  {count:,} {label}", indent=4)
    if len(groups) > GROUPS:
        echo(f"  and {len(groups) - GROUPS:,} groups more")
    if len(to_leave) == len(found):
        each = "It may have gone out, and its key is" if len(found) == 1 else "Each may have gone out, and its key is"
        look = failures.LOOK_FIRST.format(_some(to_leave))
        echo_wrapped(f"None can be tried again. {each} too old. {look}", err=True)
        raise typer.Exit(1)
    unsure = sum(post.maybe_sent for post in found) - len(to_leave)
    if unsure:
        echo_wrapped(f"{unsure:,} of them may have gone out: {OPENED if not_sent else CLOSED}.")
        if not not_sent:
            echo(NOT_SENT)
    if to_leave:
        echo_wrapped(f"{len(to_leave):,} of these will be left as failed: {TOO_OLD}.")


def say_groups(found: "FailedGroups") -> None:
    """How many posts failed in the same way, whatever the list above has room for."""
    from shared.store import failed_posts  # noqa: PLC0415 - as above

    at_least = "At least " if found.truncated else ""
    echo(f"{at_least}{found.total:,} failed post{'' if found.total == 1 else 's'} by class and last words:")
    for group in found.groups:
        echo_wrapped(f"  {group.count:,} {failed_posts.label(group)}", indent=4)
    if found.distinct > len(found.groups):
        echo(f"  and {found.distinct - len(found.groups):,} groups more")


def say_failed(found: "Sequence[FailedPost]", now: datetime, *, as_json: bool) -> None:
    """Failed posts as a table, or as JSON. `now`: the database's clock, for times such as `3 min ago`."""
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import failed_posts  # noqa: PLC0415

    rows = [
        {
            "postId": post.id,
            "workspaceId": post.workspace_id,
            "accountId": post.account_id,
            "failedAt": edit_histories.moment(post.failed_at),
            "scheduledTime": edit_histories.moment(post.scheduled_time),
            "maybeSent": post.maybe_sent,
            "class": post.failure.value,
            "reason": post.reason,
            "lastAnswer": post.answer,
        }
        for post in found
    ]
    if not as_json:
        for row, post in zip(rows, found, strict=True):
            row["failedAt"] = histories.away(post.failed_at, now) if post.failed_at else "not known"
            row["maybeSent"] = "maybe" if post.maybe_sent else "no"
            row["reason"] = failed_posts.label(post)
    headings = {"postId": "post", "failedAt": "failed", "maybeSent": "gone out?", "reason": "class: last words"}
    say(rows, headings, as_json=as_json, none="There are no such posts.", wraps="reason")


def _retry(seen: dict[str, int], data_dir: Path, by: str, *, not_sent: bool) -> "tuple[list[Retried], list[str]]":
    """Retry some hundred posts in a transaction, and ring for them after its commit.

    Left out are posts that are locked elsewhere, and posts whose revision is no longer the one that the operator has
    `seen`: a try may have been made since. Returned second: posts that may have gone out and whose keys are too old.
    """
    from shared.broker import queue  # noqa: PLC0415 - as above
    from shared.store import failures  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    done: list[Retried] = []
    too_old: list[str] = []
    found, post_ids = parts(data_dir), list(seen)
    for start in range(0, len(post_ids), TOGETHER):
        with database(data_dir) as tx:
            together = {post_id: seen[post_id] for post_id in post_ids[start : start + TOGETHER]}
            some = failures.retry_unchanged(tx, together, Actor(by), not_sent=not_sent)
            if not not_sent:
                too_old += failures.keys_too_old(tx, together.keys() - {one.post_id for one in some})
        done += some
        if found.redis_url:
            # What is not rung for, rescue and dispatch find within seconds.
            with reaching(found):
                publishes, renders = failures.to_ring(some)
                queue.enqueue_publish(publishes)
                queue.enqueue_renders(renders)
    return done, too_old
