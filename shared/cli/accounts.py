"""`redraft accounts`: the TikTok and Instagram accounts of a workspace."""

from typing import Annotated, Literal

import typer

from shared.cli.workspaces import DATA_DIR, AsJson, Folder, ago, checked_name, database, find_workspace, say, say_json

app = typer.Typer(help="The TikTok and Instagram accounts of a workspace.", no_args_is_help=True)


@app.command("add")
def add(
    workspace: Annotated[str, typer.Argument(help="Its id or its name.")],
    platform: Annotated[Literal["tiktok", "instagram"], typer.Argument(case_sensitive=False)],
    name: Annotated[str, typer.Argument(help="What the account is called, as in @name.")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Add an account. Posts are made for it by its id."""
    from shared.store import keys  # noqa: PLC0415 - heavy imports wait until the command runs

    name = checked_name(name)
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace)
        account_id = keys.add_account(tx, home.id, platform, name)
    if as_json:
        say_json({"accountId": account_id, "workspaceId": home.id, "platform": platform, "name": name})
        return
    typer.echo(f"Account {name} on {platform} belongs to workspace {home.name} now; its id: {account_id}")


@app.command("list")
def list_accounts(
    workspace: Annotated[str | None, typer.Argument(help="Its id or its name; all workspaces if not given.")] = None,
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List the accounts of one workspace, or of all."""
    from shared.domain.times import format_instant  # noqa: PLC0415
    from shared.store import keys  # noqa: PLC0415 - as above

    with database(data_dir) as tx:
        homes = keys.workspaces(tx) if workspace is None else [find_workspace(tx, workspace)]
        found = keys.accounts_of(tx, *(home.id for home in homes))
    rows = [
        {
            "accountId": one.id,
            "workspaceId": one.workspace_id,
            "platform": one.platform,
            "name": one.name,
            "createdAt": format_instant(one.created_at),
        }
        for one in found
    ]
    if not as_json:
        rows = [row | {"createdAt": ago(one.created_at)} for row, one in zip(rows, found, strict=True)]
    headings = {
        "accountId": "id", "workspaceId": "workspace", "platform": "platform", "name": "name", "createdAt": "created",
    }  # fmt: skip
    say(
        rows,
        headings,
        priority=("accountId", "name", "platform", "workspaceId"),
        shortens=("name",),
        as_json=as_json,
        none="There are no accounts here yet. Add one: redraft accounts add WORKSPACE tiktok NAME",
    )
