"""Which edits a command means: the options of `redraft edits`, and what they say."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.post_retries import parse_since
from shared.cli.workspaces import database, find_workspace, refuse

if TYPE_CHECKING:
    from shared.store.edit_lists import EditFilter


class EditState(StrEnum):
    """The lifecycle's EditStatus once more, for typer, which wants it before anything heavy is imported."""

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    FAILED = "failed"


class DiscardableState(StrEnum):
    """What may be discarded by a filter."""

    FAILED = "failed"
    QUEUED = "queued"


Post = Annotated[str | None, typer.Option(help="Only this post's: post_…")]
RequestId = Annotated[str | None, typer.Option("--request", help="Only those of the request with this X-Request-Id.")]
Workspace = Annotated[str | None, typer.Option(help="Only this workspace's: its id or its name.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Only this account's: its id or its name.")]
KeyName = Annotated[str | None, typer.Option("--key", help="Only those sent with this API key: its name or its id.")]
ErrorPart = Annotated[
    str | None, typer.Option("--error", "--reason", help="Only those whose error's code or message holds this.")
]
Since = Annotated[str | None, typer.Option(help="Only those accepted since then, UTC: 2026-03-01T12:00Z.")]
Until = Annotated[str | None, typer.Option(help="Only those accepted before then, UTC: 2026-03-01T13:00Z.")]


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
