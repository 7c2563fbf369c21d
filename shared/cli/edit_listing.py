"""`redraft edits list`: edits by whatever an operator asks for, a row a line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.edit_filters import (
    AccountName,
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
from shared.cli.places import ask_redis
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, database, echo, say, say_json, screen_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.domain.edit_histories import EditHistory
    from shared.domain.waits import Waits
    from shared.store.edit_lists import EditFilter

QUEUE_CUT = (
    "More than {0:,} edits wait. These are the longest waiting of {0:,} of them; a longer waiting one may be among the "
    "others."
)


def list_edits(
    *,
    status: Annotated[
        EditState | None, typer.Option("--status", metavar="STATUS", help=f"Only these: {', '.join(EditState)}.")
    ] = None,
    post: Post = None,
    workspace: Workspace = None,
    account: AccountName = None,
    key: KeyName = None,
    request: RequestId = None,
    error: ErrorPart = None,
    since: Since = None,
    until: Until = None,
    job: Annotated[str | None, typer.Option(help="The moves of this bulk job: rsch_…")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List edits, newest first; queued ones, the longest waiting first. Moves by bulk jobs are left out."""
    from shared.domain import waits  # noqa: PLC0415 - heavy imports wait until the command runs

    wanted = edit_filter(
        data_dir, status=status, post=post, workspace=workspace, account=account, key=key, request=request, error=error,
        since=since, until=until, job=job,
    )  # fmt: skip
    found, more = _listed(data_dir, wanted, limit)
    if as_json:
        around = _around(data_dir, found)
        say_json([waits.as_json(edit, around) for edit in found])
    else:
        _say_edits(found)
    if more:
        echo(f"Only the first {limit:,} are shown; --limit shows more.", err=True)


def _around(data_dir: Path, found: "Sequence[EditHistory]") -> "Waits":
    """What may keep these edits waiting, of those that wait."""
    from shared.domain.waits import Waits  # noqa: PLC0415 - as above
    from shared.store import locks  # noqa: PLC0415

    waiting = list({edit.post_id for edit in found if edit.finalized_at is None})
    if not waiting:
        return Waits()
    with database(data_dir) as tx:
        locked = locks.of_posts(tx, waiting)
    return Waits(locked, ask_redis(data_dir))


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
    say(rows, COLUMNS, as_json=False, none="There are no such edits.", priority=PRIORITY)
