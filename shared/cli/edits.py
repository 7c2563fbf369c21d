"""`redraft edits`: lists, one edit's history, and what an operator may do about a failed edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.edit_filters import (
    AccountName,
    DiscardableState,
    EditState,
    ErrorPart,
    KeyName,
    Post,
    RequestId,
    Since,
    Until,
    Workspace,
    edit_filter,
)
from shared.cli.edit_listing import list_edits
from shared.cli.edit_mending import check_which, mend_chosen, say_failures
from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo,
    echo_wrapped,
    refuse,
    say_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from shared.domain.edit_histories import EditHistory, Prospect
    from shared.store.acts import Actor, Recorded
    from shared.store.operator_actions import Done, NotDone

SHOWN = 20

app = typer.Typer(help="Edits: lists, histories, and what to do about failed ones.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="EDIT...", help="As lists, logs and Flower show it: edit_…")]


app.command("list")(list_edits)


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


@app.command("failures")
def failures(
    *,
    post: Post = None,
    workspace: Workspace = None,
    account: AccountName = None,
    key: KeyName = None,
    request: RequestId = None,
    error: ErrorPart = None,
    since: Since = None,
    until: Until = None,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Count failed edits by error, the most frequent first."""
    wanted = edit_filter(
        data_dir, status=EditState.FAILED, post=post, workspace=workspace, account=account, key=key, request=request,
        error=error, since=since, until=until,
    )  # fmt: skip
    say_failures(wanted, data_dir=data_dir, as_json=as_json)


@app.command("requeue")
def requeue(
    edit_ids: Ids = None,
    *,
    post: Post = None,
    workspace: Workspace = None,
    account: AccountName = None,
    key: KeyName = None,
    request: RequestId = None,
    error: ErrorPart = None,
    since: Since = None,
    until: Until = None,
    by: By = None,
    yes: Yes = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Give failed edits another try, each behind everything that waits for its post now.

    Name the edits, or choose all that a filter means. What would be overwritten is shown before it asks.
    """
    given = (post, workspace, account, key, request, error, since, until)
    filtered = any(one is not None for one in given)
    check_which(edit_ids, filtered=filtered, as_json=as_json, yes=yes)
    if not filtered:
        _decide(edit_ids or [], "requeue", by, yes=yes, data_dir=data_dir, as_json=as_json)
        return
    wanted = edit_filter(
        data_dir, status=EditState.FAILED, post=post, workspace=workspace, account=account, key=key, request=request,
        error=error, since=since, until=until,
    )  # fmt: skip
    mend_chosen(wanted, "requeue", _actor(by), yes=yes, data_dir=data_dir, as_json=as_json)


@app.command("discard")
def discard(
    edit_ids: Ids = None,
    *,
    status: Annotated[
        DiscardableState | None,
        typer.Option("--status", metavar="STATUS", help="With a filter: failed, unless it is queued."),
    ] = None,
    post: Post = None,
    workspace: Workspace = None,
    account: AccountName = None,
    key: KeyName = None,
    request: RequestId = None,
    error: ErrorPart = None,
    since: Since = None,
    until: Until = None,
    by: By = None,
    yes: Yes = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Reject failed or queued edits for good: they never take effect.

    Name the edits, or choose all that a filter means. The count is shown before it asks.
    """
    given = (status, post, workspace, account, key, request, error, since, until)
    filtered = any(one is not None for one in given)
    check_which(edit_ids, filtered=filtered, as_json=as_json, yes=yes)
    if not filtered:
        _decide(edit_ids or [], "discard", by, yes=yes, data_dir=data_dir, as_json=as_json)
        return
    wanted = edit_filter(
        data_dir, status=EditState(status or "failed"), post=post, workspace=workspace, account=account, key=key,
        request=request, error=error, since=since, until=until,
    )  # fmt: skip
    mend_chosen(wanted, "discard", _actor(by), yes=yes, data_dir=data_dir, as_json=as_json)


def _actor(by: str | None) -> "Actor":
    from shared.store.acts import Actor  # noqa: PLC0415 - as above

    return Actor(operator_name(by))


def _decide(edit_ids: list[str], verb: str, by: str | None, *, yes: bool, data_dir: Path, as_json: bool) -> None:
    """Show, ask, do, and ring below the commit; one edit after the other, each in a transaction of its own."""
    from shared.domain.lifecycle import EditStatus  # noqa: PLC0415 - as above
    from shared.store import operator_actions  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

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
        echo_wrapped(f"  {sentence}", indent=2)
    for one in seen.overwrites:
        fields = edit_histories.listed(one.fields)
        echo_wrapped(
            f"    {fields} as {one.edit_id} set it"
            f" ({one.status} {edit_histories.moment(one.at)}, by {one.requested_by})",
            indent=6,
        )
    for line in _changes(seen.before, seen.after, zone):
        echo_wrapped(f"  {line}", indent=19)


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
