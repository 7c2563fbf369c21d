"""`redraft keys`: API keys, each for one workspace, with scopes and a limit, revocable at once (docs/security.md)."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.cli.ages import RULE, parse_age
from shared.cli.workspaces import (
    DATA_DIR,
    AsJson,
    Folder,
    checked_name,
    database,
    find_workspace,
    refuse,
    say,
    say_json,
    screen_width,
)

if TYPE_CHECKING:
    from shared.store.keys import Entry

app = typer.Typer(help="API keys, each for one workspace.", no_args_is_help=True)

RATE_LIMIT: Final = 6000
MOST: Final = 2**31 - 1
ONCE: Final = "It is shown this once: only its hash is kept. If it is lost, make a new key and revoke this one."
LONGEST: Final = timedelta(days=3653)
"""How far away the end of a key may be."""


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
    expires: Annotated[
        str | None,
        typer.Option(help="When it ends: 90d, 12w or 48h from now, or a time in UTC, 2026-12-31T12:00Z. Else never."),
    ] = None,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    from shared.domain.times import format_instant  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import keys, posts  # noqa: PLC0415

    if no_rate_limit and rate_limit is not None:
        refuse("Give --rate-limit or --no-rate-limit, not both.")
    limit = None if no_rate_limit else rate_limit or RATE_LIMIT
    scopes = keys.in_order(scope or keys.SCOPES)
    name = checked_name(name)
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace)
        try:
            ends = end_of(expires, posts.clock(tx))
        except ValueError as error:
            refuse(f"--expires {expires}: {error}.")
        try:
            secret = keys.create_key(tx, home.id, name, scopes, limit, expires_at=ends)
        except keys.NameTakenError:
            refuse(f"Workspace {home.name} has or had a key called {name}, whose edits carry that name. Choose another")
        [found] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
    key_id, until = found.key.id, format_instant(ends) if ends else None
    if as_json:
        said = {"keyId": key_id, "workspaceId": home.id, "name": name, "scopes": scopes, "rateLimit": limit}
        say_json(said | {"expiresAt": until, "secret": secret})
        typer.echo(ONCE, err=True)
        return
    pace = "no rate limit" if limit is None else f"{limit:,} requests a minute"
    may = "; ".join([", ".join(scopes), pace, *([f"until {until}"] if until else [])])
    typer.echo(f"Key {name} ({key_id}) of workspace {home.name}: {may}.\n\n  {secret}\n\n{ONCE}")


def end_of(given: str | None, now: datetime) -> datetime | None:
    """When a key ends that is made now: `given` is a length (90d) or a time. None for None. ValueError with words."""
    from shared.domain.times import parse_instant  # noqa: PLC0415 - as above

    if given is None:
        return None
    length = parse_age(given)
    ends = now + min(length, 2 * LONGEST) if length is not None else parse_instant(given.strip())
    if ends is None:
        raise ValueError(f"{RULE}, or a time in UTC, like 2026-12-31T12:00Z")
    if ends <= now:
        raise ValueError("that time is over; choose a later one")
    if ends > now + LONGEST:
        raise ValueError("a key ends within ten years; without --expires it never ends")
    return ends


COLUMNS: Final = {
    "keyId": "id",
    "workspaceId": "workspace",
    "name": "name",
    "scopes": "scopes",
    "rateLimit": "a minute",
    "hint": "ends in",
    "createdAt": "created",
    "lastUsedAt": "last used",
    "expiresAt": "expires",
    "revokedAt": "revoked",
}
PRIORITY: Final = (
    *("keyId", "name", "lastUsedAt", "expiresAt", "revokedAt"),
    *("scopes", "hint", "workspaceId", "rateLimit", "createdAt"),
)
"""Which columns a narrow terminal keeps, the first one first."""


@app.command("list")
def list_keys(
    workspace: Annotated[str | None, typer.Argument(help="Its id or its name; all workspaces if not given.")] = None,
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List the keys of one workspace, or of all, revoked and expired ones too.

    Of each secret the last four characters are shown. The last use may be a minute old.
    """
    from shared.store import keys  # noqa: PLC0415 - as above

    with database(data_dir) as tx:
        homes = keys.workspaces(tx) if workspace is None else [find_workspace(tx, workspace)]
        found = keys.keys_of(tx, *(home.id for home in homes))
    if as_json:
        say_json([_as_json(one) for one in found])
        return
    rows = [_as_row(one, whole=screen_width() is None) for one in found]
    none = "There are no keys here yet. Make one: redraft keys create WORKSPACE NAME"
    say(rows, COLUMNS, as_json=False, none=none, priority=PRIORITY, shortens=("name",))


def _as_json(entry: "Entry") -> dict[str, object]:
    from shared.domain.times import format_instant  # noqa: PLC0415 - as above
    from shared.store import keys  # noqa: PLC0415

    return {
        "keyId": entry.key.id,
        "workspaceId": entry.key.workspace_id,
        "name": entry.key.name,
        "scopes": keys.in_order(entry.key.scopes),
        "rateLimit": entry.key.rate_limit,
        "hint": entry.hint,
        **{field: format_instant(at) if at else None for field, at in _times(entry).items()},
    }


def _as_row(entry: "Entry", *, whole: bool) -> dict[str, str]:
    """`whole`: times as a script compares them, else as a person reads them in a narrow column."""
    from shared.domain.histories import away  # noqa: PLC0415 - as above
    from shared.domain.times import format_instant  # noqa: PLC0415
    from shared.store import keys  # noqa: PLC0415

    limit = entry.key.rate_limit
    times = {
        field: (format_instant(at) if whole else away(at, entry.read_at)) if at else ""
        for field, at in _times(entry).items()
    }
    return {
        "keyId": entry.key.id,
        "workspaceId": entry.key.workspace_id,
        "name": entry.key.name,
        "scopes": " ".join(keys.in_order(entry.key.scopes)),
        "rateLimit": "none" if limit is None else f"{limit:,}",
        "hint": f"…{entry.hint}",
        **times,
        "lastUsedAt": times["lastUsedAt"] or "never",
    }


def _times(entry: "Entry") -> dict[str, datetime | None]:
    return {
        "createdAt": entry.created_at,
        "lastUsedAt": entry.last_used_at,
        "expiresAt": entry.expires_at,
        "revokedAt": entry.revoked_at,
    }


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
