"""`redraft posts export`: what waits, as a CSV that a spreadsheet takes and `redraft reschedule --csv` reads back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shared.cli.workspaces import DATA_DIR, AsJson, say_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shared.cli.waiting_posts import Post, Posts

COMMAND: Final = "redraft posts export"
FIELDS: Final = ("postId", "scheduledTime", "timezone", "account", "status", "revision", "caption")


def export(
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="A CSV on standard output.")] = False,
    account: Annotated[list[str] | None, typer.Option(help="Posts of this account; may be given again.")] = None,
    scheduled_from: Annotated[
        str, typer.Option("--from", help="Posts scheduled at this UTC time or later, like 2030-04-22T19:00Z.")
    ] = "",
    scheduled_to: Annotated[str, typer.Option("--to", help="Posts scheduled before this UTC time.")] = "",
    data_dir: Annotated[Path, typer.Option(help="Where a local stack's stack.json lies.")] = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Write the posts that wait, by time: change times and captions in a spreadsheet, then `redraft reschedule --csv`.

    Nothing is written before all is read. The key needs the scope posts:read.
    """
    from shared.cli.api_client import ArgumentsError, session  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.cli.waiting_posts import Posts, check_accounts  # noqa: PLC0415
    from shared.domain.times import INSTANT_RULE, parse_instant  # noqa: PLC0415

    with session(data_dir, COMMAND) as api:
        if as_csv == as_json:
            raise ArgumentsError("say --csv or --json")
        for name, value in (("--from", scheduled_from), ("--to", scheduled_to)):
            if value and parse_instant(value) is None:
                raise ArgumentsError(f"{name} must be {INSTANT_RULE}")
        posts = Posts(api)
        names = posts.accounts()
        check_accounts(account or (), names)
        rows = [_row(post, names) for post in _read(posts, account or (), scheduled_from, scheduled_to)]
    if as_json:
        say_json(rows)
    else:
        typer.echo(_csv(rows), nl=False)


def _read(posts: "Posts", account: "Sequence[str]", scheduled_from: str, scheduled_to: str) -> "list[Post]":
    """The posts by time. The revision and the caption of each are of the same moment."""
    from rich.console import Console  # noqa: PLC0415 - as above

    found: list[Post] = []
    with Console(stderr=True).status("reading the posts") as shown:
        for count, post in enumerate(posts.waiting(account, scheduled_from, scheduled_to), 1):
            found.append(post)
            if count % 100 == 0:
                shown.update(f"reading the posts: {count:,}")
    return sorted(found, key=lambda post: (post["scheduledTime"], post["postId"]))


def _row(post: "Mapping[str, Any]", names: "Mapping[str, str]") -> dict[str, Any]:
    from datetime import datetime  # noqa: PLC0415 - as above

    from shared.domain.times import format_local, to_local  # noqa: PLC0415

    local = to_local(datetime.fromisoformat(post["scheduledTime"]), post["timezone"])
    account = names.get(post["accountId"], post["accountId"])
    return {**post, "scheduledTime": format_local(local), "timezone": post["timezone"] or "", "account": account}


def _csv(rows: "Iterable[Mapping[str, Any]]") -> bytes:
    """With a mark: without one, Excel takes UTF-8 for the coding of its country. A time keeps its T: Excel leaves such
    a cell alone, and would show one with a blank in its country's way.
    """
    import csv  # noqa: PLC0415 - as above
    import io  # noqa: PLC0415

    from shared.domain.csv_lines import safe_cell  # noqa: PLC0415

    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(FIELDS)
    lines.writerows([safe_cell(str(row[name])) for name in FIELDS] for row in rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()
