"""`redraft posts hold` and `redraft posts resume`: of posts, of an account, of a workspace."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.cli import post_holds
from shared.cli.operator import By, operator_name
from shared.cli.post_holds import lock_in_words, ring, say_going_out
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    database,
    echo_wrapped,
    find_workspace,
    refuse,
    say_json,
)
from shared.domain.plurals import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.store.scope_holds import Scope, Step, Work

UNDER_WAY: Final = "Claims or another hold of the workspace are under way; `redraft doctor` names a session that stays."

Posts = Annotated[list[str] | None, typer.Argument(metavar="POST...", help="These posts.")]
Workspace = Annotated[str | None, typer.Option(help="The whole workspace, by id or name.")]
Account = Annotated[str | None, typer.Option(help="All posts of this account, by id.")]


class Missed(StrEnum):
    """What becomes of posts whose time went by while they were held."""

    PUBLISH = "publish"


def hold(
    post_ids: Posts = None,
    *,
    workspace: Workspace = None,
    account: Account = None,
    reason: Annotated[str | None, typer.Option(help="Why, for those who find it held; webhooks carry it.")] = None,
    by: By = None,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Hold posts, an account or a workspace: none of its posts goes out until it is resumed; edits go on."""
    from shared.domain.holds import fault_of_reason  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import scope_holds  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    _check(post_ids, workspace, account)
    if reason is not None and (wrong := fault_of_reason(reason)) is not None:
        refuse(f"--reason {wrong}.")
    actor = Actor(operator_name(by))
    if post_ids:
        post_holds.hold(post_ids, actor.name, reason, data_dir, as_json=as_json)
        return
    with database(data_dir) as tx, lock_in_words(f"{UNDER_WAY} Nothing was held. Enter the same again."):
        scope = _scope(tx, workspace, account)
        taken = scope_holds.take(tx, scope, actor, reason)
    ring(taken.webhooks, data_dir)
    if as_json:
        going_out = {"goingOut": taken.going_out, "goingOutTotal": taken.going_out_total}
        say_json({"held": taken.hold.public(), **going_out})
        return
    echo_wrapped(f"{scope.level.capitalize()} {scope.id} is held. From now on no post of it is sent.")
    say_going_out(taken.going_out, taken.going_out_total)


def resume(
    post_ids: Posts = None,
    *,
    workspace: Workspace = None,
    account: Account = None,
    missed: Annotated[
        Missed | None, typer.Option(help="publish: posts whose time went by while they were held go out now.")
    ] = None,
    by: By = None,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Resume what is held. A post whose time went by stays held, with reason missed, until it gets a new time."""
    from shared.store import scope_holds  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    _check(post_ids, workspace, account)
    publish, name = missed is Missed.PUBLISH, operator_name(by)
    if post_ids:
        post_holds.resume(post_ids, name, data_dir, publish=publish, as_json=as_json)
        return
    with database(data_dir) as tx:
        scope = _scope(tx, workspace, account)
        above = scope_holds.above(tx, scope)
    if publish and above is not None:
        refuse("The workspace of this account is held: no post of it can go out. Resume the workspace first.", code=1)
    total = _resume_scope(scope, Actor(name).name, data_dir, publish=publish)
    if as_json:
        still = above and above.public()
        say_json({"held": still, "missed": total.missed, "released": total.released})
        return
    echo_wrapped(f"{scope.level.capitalize()} {scope.id} is resumed.")
    if above is not None:
        echo_wrapped("Its workspace is held still, so its posts stay where they are.")
    if publish:
        echo_wrapped(f"{counted(total.released, 'post')} that missed the time will go out now.")
        if total.missed:
            stay = "is locked by another transaction and stays" if total.missed == 1 else "are locked and stay"
            echo_wrapped(f"{counted(total.missed, 'post')} {stay} held. Enter the same again to send the rest.")
    elif total.missed:
        one = total.missed == 1
        stay = "its time, and stays held until it gets" if one else "their times, and stay held until they get"
        echo_wrapped(
            f"{counted(total.missed, 'post')} missed {stay} a new one. To send {'it' if one else 'them'} now: "
            f"redraft posts resume --{scope.level} {scope.id} --missed publish"
        )


def _resume_scope(scope: "Scope", by: str, data_dir: Path, *, publish: bool) -> "Step":
    from shared.domain.errors import Unavailable  # noqa: PLC0415 - as above
    from shared.store import scope_holds  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    def in_transaction(work: "Work") -> "Step":
        with database(data_dir) as tx, lock_in_words(f"{UNDER_WAY} The resume is not done. Enter the same again."):
            return work(tx)

    works = scope_holds.resuming(scope, Actor(by), publish_missed=publish)
    try:
        total = scope_holds.run(works, in_transaction)
    except Unavailable as error:
        refuse(f"{error}.", code=1)
    ring(total.webhooks, data_dir)
    return total


def _check(post_ids: Sequence[str] | None, workspace: str | None, account: str | None) -> None:
    if [bool(post_ids), workspace is not None, account is not None].count(True) != 1:
        refuse("Which posts? Name them, or give one of --account and --workspace.")


def _scope(tx: "Connection", workspace: str | None, account: str | None) -> "Scope":
    from shared.store import keys  # noqa: PLC0415 - as above
    from shared.store.scope_holds import Scope  # noqa: PLC0415

    if workspace is not None:
        return Scope(find_workspace(tx, workspace).id)
    found = keys.account(tx, account or "")
    if found is None:
        refuse(f"There is no account {account}. See: redraft accounts list")
    return Scope(found.workspace_id, found.id)
