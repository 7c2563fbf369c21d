"""Whether what lies on disk is ours alone to change: what we read back decides what we run.

Flower's history is read by pickle, `stack.json` says to which database a command goes, and PostgreSQL's folder is the
truth. No other user may write any of it.
"""

import grp
import os
import pwd
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from shared.local.errors import LocalError

LINKS_AT_MOST: Final = 40  # as the kernel's own, for links that lead in a circle
ELSEWHERE: Final = "or choose another folder with --data-dir"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What lstat(2) says of one thing. `private_group`: its group is its owner's own, with no other member."""

    kind: str  # folder, file, link, or other
    owner: int
    mode: int
    private_group: bool = False

    @classmethod
    def of(cls, status: os.stat_result) -> "FileFacts":
        kinds = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
        return cls(kind, status.st_uid, stat.S_IMODE(status.st_mode), _is_private(status.st_gid, status.st_uid))


def fault(seen: FileFacts, ours: Collection[int], *, on_the_way: bool = False) -> str | None:
    """`link`, `owner` or `mode` where another user could change it, else None. `ours`: owners that are no strangers.

    `on_the_way`: it is only passed through. Then a link may stand there, if no stranger made it, and others may write
    if they cannot touch what is not theirs (the sticky bit, as /tmp has it) or if the group is its owner alone.
    """
    if seen.owner not in ours:
        return "owner"
    if seen.kind == "link":
        return None if on_the_way else "link"
    if on_the_way:
        open_to = seen.mode & (stat.S_IWOTH if seen.private_group else stat.S_IWGRP | stat.S_IWOTH)
        return "mode" if open_to and not seen.mode & stat.S_ISVTX else None
    return "mode" if seen.mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def refuse(path: Path, seen: FileFacts, ours: Collection[int], *, on_the_way: bool = False, wanted: str = "") -> None:
    """LocalError, which says what to do, where `fault` finds one, or where this is not the kind that is wanted."""
    match fault(seen, ours, on_the_way=on_the_way):
        case "owner":
            raise LocalError(f"{path} belongs to another user ({_name(seen.owner)}). Start as that user, {ELSEWHERE}.")
        case "link":
            raise LocalError(f"{path} is a link, which Redraft does not follow. Remove it, {ELSEWHERE}.")
        case "mode":
            raise LocalError(
                f"Other users may write to {path} (mode {seen.mode:04o}), and so change what Redraft reads there. "
                f"If you trust what is in it: chmod go-w {path}. Else remove it, {ELSEWHERE}."
            )
    if wanted and seen.kind != wanted:
        raise LocalError(f"{path} is no {wanted}. Remove it, {ELSEWHERE}.")


def real_folder(path: Path) -> Path:
    """Where `path` leads, without links; no stranger can put another folder there. What is missing is ours to make.

    Raises LocalError, and OSError where it cannot be looked at. Each step is looked at by itself, since a link in a
    folder that everybody may write to leads wherever its maker wants, today or tomorrow.
    """
    ours = {os.geteuid(), *_above_us()}
    left: list[str] = list(reversed(path.absolute().parts[1:]))
    here, links = Path("/"), 0
    while left:
        part = left.pop()
        if part in {".", ".."}:
            here = here.parent if part == ".." else here
            continue
        step = here / part
        try:
            status = step.lstat()
        except FileNotFoundError:
            return step.joinpath(*reversed(left))
        seen = FileFacts.of(status)
        # The last one is the folder itself, which its user looks at more closely.
        if left or seen.kind == "link":
            refuse(step, seen, ours, on_the_way=True)
        if seen.kind == "link":
            links += 1
            if links > LINKS_AT_MOST:
                raise LocalError(f"{path} leads in a circle of links. Choose another folder with --data-dir.")
            target = step.readlink()
            if target.is_absolute():
                here = Path("/")
            left += [part for part in reversed(target.parts) if part != "/"]
            continue
        if seen.kind != "folder":
            raise LocalError(f"{step} is not a folder. Choose another one with --data-dir.")
        here = step
    return here


def make_folder(path: Path, mode: int) -> None:
    """The folder and what is missing above it, whatever the umask says; those above let others pass, not look."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
        folder.chmod(mode if folder == path else 0o711)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file of ours, or FileNotFoundError. LocalError: a link, not ours, or open to others."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise LocalError(f"{path} belongs to another user. Start as that user, {ELSEWHERE}.") from error
    except OSError as error:
        if path.is_symlink():
            refuse(path, FileFacts("link", os.geteuid(), 0), {os.geteuid()})
        if isinstance(error, FileNotFoundError):
            raise
        raise LocalError(f"{path} cannot be opened: {error.strerror}. Remove it, {ELSEWHERE}.") from error
    seen = FileFacts.of(os.fstat(descriptor))
    try:
        refuse(path, seen, {os.geteuid()}, wanted="file")
    except LocalError:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path) -> str:
    """The text of a file of ours; errors as `open_file`."""
    with os.fdopen(open_file(path), encoding="utf-8") as file:
        return file.read()


def refuse_strangers(folder: Path, prefixes: Sequence[str], ours: Collection[int]) -> None:
    """LocalError if anything in `folder` whose name begins with one of `prefixes` is a link or others' to change."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(tuple(prefixes)):
            refuse(entry, FileFacts.of(entry.lstat()), ours)


@cache
def _above_us() -> frozenset[int]:
    """Who could run anything as us already: root, and the owners of this very code and of the root of all folders.

    The last one is root by another number, in a container with users of its own.
    """
    return frozenset({0, Path("/").stat().st_uid, Path(__file__).stat().st_uid})


def _is_private(group: int, owner: int) -> bool:
    """Whether a group is a user's own, as many systems make one for each: it has his name and no other member."""
    try:
        found, name = grp.getgrgid(group), pwd.getpwuid(owner).pw_name
    except KeyError:
        return False
    return found.gr_name == name and not set(found.gr_mem) - {name}


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"number {user}"
