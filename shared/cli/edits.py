"""`redraft edits`: lists, one edit's history, and what an operator may do about a failed edit."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.post_retries import parse_since
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
    screen_width,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from shared.domain.edit_histories import EditHistory, Prospect
    from shared.store.acts import Actor, Recorded
    from shared.store.edit_lists import EditFilter
    from shared.store.operator_actions import Done, NotDone

SHOWN = 20
QUEUE_CUT = (
    "More than {0:,} edits wait. These are the longest waiting of {0:,} of them; a longer waiting one may be among the "
    "others."
)

app = typer.Typer(help="Edits: lists, histories, and what to do about failed ones.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]
Ids = Annotated[list[str], typer.Argument(metavar="EDIT...", help="As lists, logs and Flower show it: edit_…")]


class EditState(StrEnum):
    """The lifecycle's EditStatus once more, for typer, which wants it before anything heavy is imported."""

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    FAILED = "failed"


Workspace = Annotated[str | None, typer.Option(help="Only this workspace's: its id or its name.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Only this account's: its id or its name.")]
KeyName = Annotated[str | None, typer.Option("--key", help="Only those sent with this API key: its name or its id.")]
ErrorPart = Annotated[
    str | None, typer.Option("--error", "--reason", help="Only those whose error's code or message holds this.")
]
Since = Annotated[str | None, typer.Option(help="Only those accepted since then, UTC: 2026-03-01T12:00Z.")]
Until = Annotated[str | None, typer.Option(help="Only those accepted before then, UTC: 2026-03-01T13:00Z.")]


@app.command("list")
def list_edits(
    *,
    status: Annotated[
        EditState | None, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(EditState)}.")
    ] = None,
    post: Annotated[str | None, typer.Option(help="Only this post's, moves by bulk jobs too: post_…")] = None,
    workspace: Workspace = None,
    account: AccountName = None,
    key: KeyName = None,
    request: Annotated[str | None, typer.Option(help="Only those of the request with this X-Request-Id.")] = None,
    error: ErrorPart = None,
    since: Since = None,
    until: Until = None,
    job: Annotated[str | None, typer.Option(help="The moves of this bulk job: rsch_…")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List edits, newest first; queued ones, the longest waiting first. Moves by bulk jobs are left out."""
    from shared.domain import edit_histories  # noqa: PLC0415 - heavy imports wait until the command runs

    wanted = edit_filter(
        data_dir, status=status, post=post, workspace=workspace, account=account, key=key, request=request, error=error,
        since=since, until=until, job=job,
    )  # fmt: skip
    found, more = _listed(data_dir, wanted, limit)
    if as_json:
        say_json([edit_histories.as_json(edit) for edit in found])
    else:
        _say_edits(found)
    if more:
        echo(f"Only the first {limit:,} are shown; --limit shows more.", err=True)


def edit_filter(
    data_dir: Path, *, status: EditState | None = None, post: str | None = None, workspace: str | None = None,
    account: str | None = None, key: str | None = None, request: str | None = None, error: str | None = None,
    since: str | None = None, until: str | None = None, job: str | None = None,
) -> "EditFilter":  # fmt: skip
    """What the options mean. Exits with 2 for a workspace or an account that is not there, and for what is no time."""
    from shared.store import keys  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store.edit_lists import EditFilter  # noqa: PLC0415

    if error is not None and not error.strip():
        refuse("--error is empty, and would match every edit. Say a part of what the list shows, or leave it out.")
    begins, ends = parse_since(since), parse_since(until, "--until")
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace).id if workspace is not None else None
        accounts = keys.accounts_named(tx, account) if account is not None else []
    if account is not None and not accounts:
        refuse(f"There is no account {account}. See which there are: redraft accounts list")
    homes = {one.workspace_id for one in accounts}
    return EditFilter(
        status=status.value if status else None,
        post_id=post,
        workspace_id=home or (homes.pop() if len(homes) == 1 else None),
        accounts=tuple(one.id for one in accounts) if account is not None else None,
        key=key,
        request_id=request,
        error=error,
        since=begins,
        until=ends,
        job_id=job,
    )


def _listed(data_dir: Path, wanted: "EditFilter", limit: int) -> "tuple[list[EditHistory], bool]":
    """The first edits of a list, and whether there are more. A rare filter is looked for to the list's end."""
    from shared.store import edit_lists  # noqa: PLC0415 - as above

    found: list[EditHistory] = []
    place = None
    while True:
        # A transaction for each page: none of them may last long.
        with database(data_dir) as tx:
            page = edit_lists.page(tx, wanted, place, limit - len(found))
        found += page.edits
        place = page.next_place
        if place is None:
            if page.looked_at:
                # Only the queue's list ends with a cut.
                echo(QUEUE_CUT.format(page.looked_at), err=True)
            return found, False
        if len(found) >= limit:
            return found, True


COLUMNS = {
    "editId": "id",
    "postId": "post",
    "status": "status",
    "createdAt": "accepted",
    "waited": "took",
    "attempts": "attempts",
    "requestedBy": "by",
    "error": "error",
}
PRIORITY = ("editId", "status", "postId", "error", "createdAt", "requestedBy", "waited", "attempts")
"""Which columns a narrow terminal keeps, the first one first."""
BETWEEN = 3
"""Spaces between two columns."""


def _say_edits(found: "list[EditHistory]") -> None:
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - as above

    # A pipe has no width. What reads it compares times with logs.
    width = screen_width()
    rows = [
        {
            "editId": edit.id,
            "postId": edit.post_id,
            "status": edit.status,
            "createdAt": histories.away(edit.created_at, edit.read_at)
            if width
            else edit_histories.moment(edit.created_at) or "",
            "waited": edit_histories.duration(edit.waited),
            "attempts": str(edit.attempts),
            "requestedBy": edit.requested_by,
            "error": edit.error_code or "",
        }
        for edit in found
    ]
    say(rows, fitting(rows, COLUMNS, PRIORITY, width), as_json=False, none="There are no such edits.")


def fitting(
    rows: "Sequence[Mapping[str, str]]", columns: "Mapping[str, str]", priority: "Sequence[str]", width: int | None
) -> dict[str, str]:
    """The columns of a table that fit a terminal of this width, each whole: the first of `priority`, as many as fit."""
    kept: set[str] = set()
    for field in priority if width is not None else columns:
        taken = kept | {field}
        longest = [max([len(columns[one]), *(len(row[one]) for row in rows)]) for one in taken]
        if kept and width is not None and sum(longest) + BETWEEN * len(taken) > width:
            continue
        kept = taken
    return {field: heading for field, heading in columns.items() if field in kept}


@app.command("show")
def show(
    edit_id: Annotated[
        str, typer.Argument(metavar="EDIT", help="As lists, logs and Flower show it: edit_… Or its request's id: req_…")
    ],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one edit's history: its times, what it changed or why it did not, and what to do."""
    from shared.domain import edit_histories  # noqa: PLC0415 - as above
    from shared.domain.lifecycle import EditStatus  # noqa: PLC0415
    from shared.store import acts, keys, operator_actions  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import posts as posts_store  # noqa: PLC0415

    with database(data_dir) as tx:
        edit_id = _of_request(tx, edit_id)
        seen = operator_actions.prospect(tx, edit_id)
        done = acts.of(tx, edit_id, SHOWN)
        post = posts_store.read_posts(tx, [seen.edit.post_id])[0].get(seen.edit.post_id) if seen else None
        account = keys.account(tx, post.account_id) if post else None
    if seen is None:
        refuse(f"There is no edit {edit_id}, nor one of a request {edit_id}. See which there are: redraft edits list")
    failed = seen.edit.status == EditStatus.FAILED
    if as_json:
        kept = {"acts": [act.as_json() for act in done]}
        of_post = {"accountId": post and post.account_id, "accountName": account and account.name}
        say_json(
            edit_histories.as_json(seen.edit)
            | of_post
            | kept
            | ({"requeue": edit_histories.prospect_as_json(seen)} if failed else {})
        )
        return
    zone = post.facts.timezone if post else None
    for line in _lines(seen.edit, done, zone):
        echo_wrapped(line, indent=15)
    if post is not None:
        echo(f"Its post belongs to account {post.account_id}{f' ({account.name})' if account else ''}.")
    if failed:
        echo("\nA requeue now:")
        _show_prospect(seen, zone)
    echo_wrapped(f"\n{edit_histories.advice(seen.edit)}")


def _of_request(tx: "Connection", given: str) -> str:
    """The id of the one edit of the request with this id; the given text where there is none. Exits with 2 where there
    are several, and names them.
    """
    from shared.store import edit_lists, operator_actions  # noqa: PLC0415 - as above
    from shared.store.edit_lists import EditFilter  # noqa: PLC0415

    if operator_actions.history(tx, given) is not None:
        return given
    found = edit_lists.page(tx, EditFilter(request_id=given), limit=SHOWN).edits
    if len(found) > 1:
        ids = "\n".join(f"  redraft edits show {edit.id}" for edit in found)
        refuse(f"There are several edits of requests with the id {given}. Show one of them:\n{ids}")
    return found[0].id if found else given


@app.command("requeue")
def requeue(
    edit_ids: Ids,
    *,
    by: By = None,
    yes: Yes = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Give failed edits another try, each behind everything that waits for its post now."""
    _decide(edit_ids, "requeue", by, yes=yes, data_dir=data_dir, as_json=as_json)


@app.command("discard")
def discard(
    edit_ids: Ids,
    *,
    by: By = None,
    yes: Yes = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Reject failed or queued edits for good: they never take effect."""
    _decide(edit_ids, "discard", by, yes=yes, data_dir=data_dir, as_json=as_json)


def _decide(edit_ids: list[str], verb: str, by: str | None, *, yes: bool, data_dir: Path, as_json: bool) -> None:
    """Show, ask, do, and ring below the commit; one edit after the other, each in a transaction of its own."""
    from shared.domain.lifecycle import EditStatus  # noqa: PLC0415 - as above
    from shared.store import operator_actions  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    if as_json and not yes:
        refuse("--json asks no questions: give --yes too. `redraft edits show` says what a requeue would overwrite.")
    done: list[dict[str, Any]] = []
    for edit_id in dict.fromkeys(edit_ids):
        # Read only now: this edit may overwrite what the previous one has just been given back.
        with database(data_dir) as tx:
            seen = operator_actions.prospect(tx, edit_id)
        if seen is None:
            refuse(f"There is no edit {edit_id}. See which there are: redraft edits list")
        if not as_json:
            echo(f"{edit_id} of {seen.edit.post_id} is {seen.edit.status}; it changes {', '.join(seen.edit.changes)}.")
            if verb == "requeue" and seen.edit.status == EditStatus.FAILED:
                _show_prospect(seen)
        if not yes and not typer.confirm(f"{verb.capitalize()} it?"):
            done.append({"editId": edit_id, "done": False, "why": "you said no"})
            continue
        # The operator confirmed what was shown. --yes confirms anything.
        done.append(_do(edit_id, verb, Actor(operator_name(by)), None if yes else seen.mark, data_dir, quiet=as_json))
    if as_json:
        say_json(done)
    if not all(one["done"] for one in done):
        raise typer.Exit(1)


def _do(edit_id: str, verb: str, actor: "Actor", mark: str | None, data_dir: Path, *, quiet: bool) -> dict[str, Any]:
    from shared.broker import doorbells, queue  # noqa: PLC0415 - as above
    from shared.store import db, operator_actions  # noqa: PLC0415 - heavy imports wait until the command runs

    acts: dict[str, Callable[[Connection], Done | NotDone]] = {
        "requeue": lambda tx: operator_actions.requeue(tx, edit_id, actor, mark),
        "discard": lambda tx: operator_actions.discard(tx, edit_id, actor),
    }
    try:
        with database(data_dir) as tx:
            try:
                result = acts[verb](tx)
            except Exception as error:
                if not db.lock_timed_out(error):
                    raise
                why = "Another session has its post locked for too long; `redraft doctor` names it. Try again"
                result = operator_actions.NotDone(why)
    except typer.Exit:
        echo(f"{edit_id}: it is not known whether it was done; see `redraft edits show {edit_id}`.", err=True)
        raise
    if isinstance(result, operator_actions.NotDone):
        echo(f"{edit_id}: {result.why}.", err=True)
        if result.prospect is not None and not quiet:
            _show_prospect(result.prospect)
        return {"editId": edit_id, "done": False, "why": result.why}
    found = parts(data_dir)
    with reaching(found):
        rung = bool(found.redis_url) and doorbells.ring([result.post_id])
        if result.webhooks:
            queue.ring_webhooks(result.webhooks)
    if not quiet:
        when = (
            ""
            if rung
            else " Redis could not be reached: rescue finds the edit within seconds once workers and Redis run."
        )
        echo(f"{edit_id} is {'queued again' if verb == 'requeue' else 'discarded'}.{when}")
    return {"editId": edit_id, "done": True, "rung": rung}


def _lines(edit: "EditHistory", done: "list[Recorded]", zone: str | None) -> list[str]:
    """The history, line by line."""
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    lines = [f"{edit.id} of {edit.post_id} in {edit.workspace_id}: {edit.status}"]
    for what, when, note in edit_histories.milestones(edit):
        lines.append(f"  {what:<12} {edit_histories.moment(when) or '':<26}{note}")
    if edit.request_id:
        lines.append(f"  {'request':<12} {edit.request_id}")
    if edit.reschedule_id:
        lines.append(f"  {'bulk job':<12} {edit.reschedule_id}")
    if edit.error_code:
        lines.append(f"  {'error':<12} {edit.error_code}: {edit.error_message}")
    lines.append("It asked for:")
    lines += _fields(edit_histories.without_secrets(edit.changes))
    if edit.after:
        lines.append(f"It left the post at revision {edit.revision}:")
        lines += _changes(edit.before, edit.after, zone)
    if done:
        lines.append("What was done to it:")
    lines += [f"  {edit_histories.moment(act.at)} {act.words()}" for act in done]
    return lines


def _show_prospect(seen: "Prospect", zone: str | None = None) -> None:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    for sentence in seen.sentences():
        echo(f"  {sentence}")
    for one in seen.overwrites:
        fields = edit_histories.listed(one.fields)
        echo(
            f"    {fields} as {one.edit_id} set it"
            f" ({one.status} {edit_histories.moment(one.at)}, by {one.requested_by})"
        )
    for line in _changes(seen.before, seen.after, zone):
        echo(f"  {line}")


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"  {name:<14} {_shown(value)}" for name, value in values.items()]


def _changes(before: dict[str, Any] | None, after: dict[str, Any], zone: str | None) -> list[str]:
    """What changed, line by line; times in the post's zone too."""
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - as above

    was, now = edit_histories.without_secrets(before or {}), edit_histories.without_secrets(after)
    lines = [f"  {name:<14} {_shown(was.get(name))} -> {_shown(value)}" for name, value in now.items()]
    if "scheduledTime" in now:
        zones = (was.get("timezone") or zone, now.get("timezone") or zone)
        local = [histories.in_zone(one.get("scheduledTime"), of) for one, of in zip((was, now), zones, strict=True)]
        lines += [f"  {'local time':<14} {local[0] or 'none'} -> {local[1]}"] if local[1] else []
    return lines


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
