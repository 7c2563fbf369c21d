"""`redraft keys`: API keys, each for one workspace, with scopes and a limit, revocable at once (docs/security.md)."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    ago,
    checked_name,
    database,
    find_workspace,
    refuse,
    say,
    say_json,
)

app = typer.Typer(help="API keys, each for one workspace.", no_args_is_help=True)

RATE_LIMIT: Final = 6000
MOST: Final = 2**31 - 1
ONCE: Final = "It is shown this once: only its hash is kept. If it is lost, make a new key and revoke this one."
PRIORITY: Final = ("keyId", "name", "scopes", "revokedAt", "createdAt", "rateLimit", "hint")
"""Which columns a narrow terminal keeps, the first one first."""


class Scope(StrEnum):
    """The store's SCOPES once more, for typer, which wants them before anything heavy is imported."""

    READ = "posts:read"
    WRITE = "posts:write"
    BULK = "bulk"


@app.command("create")
def create(
    workspace: Annotated[str, typer.Argument(help="Its id or its name.")],
    name: Annotated[str, typer.Argument(help="Who uses it; edits say so. Never used twice in a workspace.")],
    *,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it may do; once for each scope. All of them if not given."),
    ] = None,
    rate_limit: Annotated[
        int | None,
        typer.Option("--rate-limit", min=1, max=MOST, help=f"Requests a minute. {RATE_LIMIT} if not given."),
    ] = None,
    no_rate_limit: Annotated[bool, typer.Option("--no-rate-limit", help="As many requests as it likes.")] = False,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    from shared.store import keys  # noqa: PLC0415 - heavy imports wait until the command runs

    if no_rate_limit and rate_limit is not None:
        refuse("Give --rate-limit or --no-rate-limit, not both.")
    limit = None if no_rate_limit else rate_limit or RATE_LIMIT
    scopes = keys.in_order(scope or keys.SCOPES)
    name = checked_name(name)
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace)
        try:
            secret = keys.create_key(tx, home.id, name, scopes, limit)
        except keys.NameTakenError:
            refuse(f"Workspace {home.name} has or had a key called {name}, whose edits carry that name. Choose another")
        [key] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
    if as_json:
        said = {"keyId": key.id, "workspaceId": home.id, "name": name, "scopes": scopes, "rateLimit": limit}
        say_json(said | {"secret": secret})
        typer.echo(ONCE, err=True)
        return
    pace = "no rate limit" if limit is None else f"{limit:,} requests a minute"
    typer.echo(f"Key {name} ({key.id}) of workspace {home.name}: {', '.join(scopes)}; {pace}.\n\n  {secret}\n\n{ONCE}")


@app.command("list")
def list_keys(
    workspace: Annotated[str | None, typer.Argument(help="Its id or its name; all workspaces if not given.")] = None,
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List the keys of one workspace, or of all, revoked ones too. Of the secrets: the last four characters."""
    from shared.domain.times import format_instant  # noqa: PLC0415
    from shared.store import keys  # noqa: PLC0415 - as above

    with database(data_dir) as tx:
        homes = keys.workspaces(tx) if workspace is None else [find_workspace(tx, workspace)]
        found = keys.keys_of(tx, *(home.id for home in homes))
    rows = [
        {
            "keyId": one.key.id,
            "workspaceId": one.key.workspace_id,
            "name": one.key.name,
            "scopes": keys.in_order(one.key.scopes),
            "rateLimit": one.key.rate_limit,
            "hint": one.hint,
            "createdAt": format_instant(one.created_at),
            "revokedAt": format_instant(one.revoked_at) if one.revoked_at else None,
        }
        for one in found
    ]
    if not as_json:
        for row, one in zip(rows, found, strict=True):
            limit = one.key.rate_limit
            row["scopes"] = " ".join(keys.in_order(one.key.scopes))
            row["rateLimit"] = "none" if limit is None else f"{limit:,}"
            row["hint"] = f"…{one.hint}"
            row["createdAt"] = ago(one.created_at)
            row["revokedAt"] = ago(one.revoked_at) if one.revoked_at else ""
    headings = {
        "keyId": "id",
        "workspaceId": "workspace",
        "name": "name",
        "scopes": "scopes",
        "rateLimit": "a minute",
        "hint": "ends in",
        "createdAt": "created",
        "revokedAt": "revoked",
    }
    say(
        rows, headings, as_json=as_json, priority=PRIORITY, shortens=("name",),
        none="There are no keys here yet. Make one: redraft keys create WORKSPACE NAME",
    )  # fmt: skip


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `redraft keys list` shows it: key_…")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Revoke a key, at once and for good. A second time changes nothing."""
    from shared.domain.times import format_instant  # noqa: PLC0415
    from shared.store import keys  # noqa: PLC0415 - as above

    if key_id.startswith("sk_"):
        # Not repeated: it is a secret, and this output may be kept.
        refuse("That is a key itself, not its id. `redraft keys list` shows ids, and how each key ends.")
    with database(data_dir) as tx:
        revoked_at = keys.revoke_key(tx, key_id)
    if revoked_at is None:
        refuse(f"There is no key {key_id}. See which there are: redraft keys list")
    if as_json:
        say_json({"keyId": key_id, "revokedAt": format_instant(revoked_at)})
        return
    typer.echo(f"Key {key_id} is revoked since {format_instant(revoked_at)}.")
