"""`redraft workspaces`, and what the other commands share with it: the database, the workspace, the output."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from shared.cli import tables
from shared.cli.places import stack_of
from shared.local.datadir import STACK_FILE

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.store.keys import Workspace

app = typer.Typer(help="Workspaces: whose posts, accounts and keys these are.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Option("--data-dir", help="Where `redraft up` runs; asked if REDRAFT_DATABASE_URL is not set.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
DATA_DIR: Final = Path(".redraft")
LONGEST_NAME: Final = 100
MOST_LISTED: Final = 20
PIPE_WIDTH: Final = 1000
"""Columns of a table with long texts, where no terminal shows it: longer than any word of a service that is kept."""


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is called, here and in lists.")],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a workspace."""
    from shared.store import keys  # noqa: PLC0415 - heavy imports wait until the command runs

    name = checked_name(name)
    if name.startswith("ws_"):
        refuse("A workspace's name may not begin with ws_, as ids do. Choose another one.")
    with database(data_dir) as tx:
        try:
            workspace_id = keys.create_workspace(tx, name)
        except keys.NameTakenError:
            refuse(f"There is a workspace called {name} already; its id: {find_workspace(tx, name).id}")
    if as_json:
        say_json({"workspaceId": workspace_id, "name": name})
        return
    typer.echo(f"Workspace {name} is made; its id: {workspace_id}")
    typer.echo(f"Next: redraft accounts add {workspace_id} tiktok NAME, then redraft keys create {workspace_id} NAME")


@app.command("list")
def list_workspaces(*, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """List all workspaces."""
    from shared.domain.times import format_instant  # noqa: PLC0415
    from shared.store import keys  # noqa: PLC0415 - as above

    with database(data_dir) as tx:
        found = keys.workspaces(tx)
    rows = [{"workspaceId": one.id, "name": one.name, "createdAt": format_instant(one.created_at)} for one in found]
    if not as_json:
        rows = [row | {"createdAt": ago(one.created_at)} for row, one in zip(rows, found, strict=True)]
    say(
        rows,
        {"workspaceId": "id", "name": "name", "createdAt": "created"},
        shortens=("name",),
        as_json=as_json,
        none="There are no workspaces yet. Make one: redraft workspaces create NAME",
    )


def find_workspace(tx: "Connection", given: str) -> "Workspace":
    """The workspace with this id, else the one with this name. Exits with 2, and says which there are."""
    from shared.store import keys  # noqa: PLC0415 - as above

    known = keys.workspaces(tx)
    if not known:
        refuse(f"There is no workspace {given}, nor any other. Make one: redraft workspaces create NAME")
    named = {one.name: one for one in known} | {one.id: one for one in known}
    if given not in named:
        names = ", ".join(f"{one.id} ({one.name})" for one in known[:MOST_LISTED])
        rest = len(known) - MOST_LISTED
        more = f" and {rest} more, see: redraft workspaces list" if rest > 0 else ""
        refuse(f"There is no workspace {given}. There are {names}{more}")
    return named[given]


@contextmanager
def database(data_dir: Path) -> Iterator["Connection"]:
    """One transaction on the database of REDRAFT_DATABASE_URL, else of the stack that runs in `data_dir`.

    Exits with 2 where neither says which, with 1 where the database is not there or not made; says what to do.
    """
    import psycopg  # noqa: PLC0415 - as above
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from shared.settings import settings  # noqa: PLC0415
    from shared.store.db import make_engine, transaction  # noqa: PLC0415

    url, source = _database_url(data_dir)
    with in_words(url, source):
        engine = make_engine(url, settings(), pool_size=1, name="redraft-cli")
        try:
            with transaction(engine) as tx:
                yield tx
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
                refuse(
                    f"The database of {source} lacks tables or columns of this version. Make them: redraft migrate",
                    code=1,
                )
            raise
        finally:
            engine.dispose()


@contextmanager
def in_words(url: str, source: str) -> Iterator[None]:
    """While this lasts, a database that is out of reach is one line on standard error, and exit code 1; a URL that is
    none is exit code 2. `source`: what said the URL.
    """
    import psycopg  # noqa: PLC0415 - as above
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError, DBAPIError  # noqa: PLC0415

    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, ImportError, ValueError):
        # Its message would hold the URL, and that a password.
        refuse(f"{source} is no URL of a database. Write it postgresql+psycopg://user:password@host:port/name")
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.OperationalError):
            raise
        several = parsed.query.get("host", "localhost:5432")
        hosts = several if isinstance(several, str) else " and ".join(several)
        place = f"{parsed.host}:{parsed.port or 5432}" if parsed.host else hosts
        said = str(error.orig).strip().partition("\n")[0]
        refuse(f"PostgreSQL at {place} (from {source}) cannot be used: {said}. Is it running?", code=1)


def _database_url(data_dir: Path) -> tuple[str, str]:
    """The URL, and what said so."""
    from shared.settings import settings  # noqa: PLC0415 - as above

    if url := settings().database_url:
        return url, "REDRAFT_DATABASE_URL"
    stack = data_dir / STACK_FILE
    try:
        return str(stack_of(data_dir)["databaseUrl"]), str(stack)
    except FileNotFoundError:
        refuse(
            f"Which database? Set REDRAFT_DATABASE_URL, or start everything with: redraft up (no stack runs in "
            f"{data_dir}; --data-dir names another folder)"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(f"{stack} cannot be read ({type(error).__name__}). Set REDRAFT_DATABASE_URL, or run this as its owner.")


def checked_name(given: str) -> str:
    """A name fit to be listed: 1 to 100 printable characters, outer spaces cut off. Exits with 2."""
    name = given.strip()
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        refuse(f"A name has 1 to {LONGEST_NAME} printable characters. Choose another one.")
    return name


def echo(line: str, *, err: bool = False) -> None:
    """Print text that a stranger may have written: control characters come out as escapes."""
    safe = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in line)
    typer.echo(safe.encode(errors="backslashreplace").decode(), err=err)


def ago(instant: datetime) -> str:
    """A time of a list: `3 d ago` on a terminal, and whole in a pipe, whose reader compares it with logs."""
    from shared.domain.histories import away  # noqa: PLC0415 - as above
    from shared.domain.times import format_instant  # noqa: PLC0415

    return format_instant(instant) if screen_width() is None else away(instant, datetime.now(UTC))


def screen_width() -> int | None:
    """The columns of the terminal; None for a pipe, whose reader wants one line for one thing."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(line: str, *, indent: int = 0) -> str:
    """A text in lines of the terminal's width at most, broken between words. `indent`: spaces before each line
    after the first. A word that is longer than a line, such as an id in a command, stays whole.
    """
    width = screen_width()
    if width is None:
        return line
    return "\n".join(part for one in line.split("\n") for part in _wrapped(one, width, indent))


def echo_wrapped(line: str, *, indent: int = 0, err: bool = False) -> None:
    """`echo` in lines of the terminal's width at most."""
    echo(wrapped(line, indent=indent), err=err)


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    if len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False,
    )  # fmt: skip


def refuse(message: str, *, code: int = 2) -> NoReturn:
    """End the command with a message on standard error and an exit code."""
    # Arguments are quoted in messages; bytes that are no text would choke the terminal's encoding.
    typer.echo(message.encode(errors="backslashreplace").decode(), err=True)
    raise typer.Exit(code)


def say_json(value: object) -> None:
    """Print JSON with its letters as they are, where the output can hold them; control characters come out escaped."""
    plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower()
    said = json.dumps(value, indent=2, ensure_ascii=plain)
    typer.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in said))


def say(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    as_json: bool,
    none: str,
    wraps: str = "",
    priority: Sequence[str] = (),
    shortens: Sequence[str] = (),
) -> None:
    """Rows as JSON, else as a table of `columns` (field: heading), else, where there are no rows, as one sentence.

    A terminal shows the columns that fit, the first of `priority` first, each row in one line. `wraps`: the field of
    long texts, which take several lines there. `shortens`: fields whose texts are cut there, such as names.
    """
    if as_json:
        say_json(rows)
        return
    if not rows:
        typer.echo(none)
        return
    from rich import box  # noqa: PLC0415 - as above
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    width = screen_width()
    if width is not None:
        columns = tables.fitting(rows, columns, width, priority=priority, shortens=shortens, wraps=wraps)
        rows = tables.cut(rows, columns, width, shortens) if not wraps else rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for field, heading in columns.items():
        table.add_column(heading, no_wrap=field != wraps, overflow="fold")
    # A pipe has no width: what reads it wants one line a row.
    console = Console(width=width or PIPE_WIDTH)
    for row in rows:
        # Text: a name may hold what rich takes for markup.
        table.add_row(*(Text(str(row[field])) for field in columns))
    console.print(table)
