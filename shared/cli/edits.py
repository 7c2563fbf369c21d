"""`redraft edits`: which name runs what, and requeue and discard of edits that are named one by one."""

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
from shared.cli.edit_showing import show, show_prospect
from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo,
    refuse,
    say_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from shared.store.acts import Actor
    from shared.store.operator_actions import Done, NotDone

app = typer.Typer(help="Edits: lists, histories, and what to do about failed ones.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="EDIT...", help="As lists, logs and Flower show it: edit_…")]


app.command("list")(list_edits)
app.command("show")(show)


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
                show_prospect(seen)
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
            show_prospect(result.prospect)
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
