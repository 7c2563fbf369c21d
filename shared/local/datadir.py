"""The data folder: who holds it, and what must stay the same from one start to the next (ports and passwords)."""

import fcntl
import json
import os
import secrets
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from shared.local import binaries, ownership
from shared.local.errors import LocalError
from shared.local.ownership import ELSEWHERE

KEPT = "kept.json"
LOCK = "lock"
STACK_FILE = "stack.json"
"""Where a running stack says where its parts are."""
KEPT_HERE = (KEPT, STACK_FILE, "valkey", "flower")
"""With what the names begin of all that is kept in a data folder; PostgreSQL's own beside."""


class DataDir:
    """A folder of ours. Open it once; it is held until `close()` or the end of this process, however that ends."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder if need be and hold it. LocalError if another stack holds it or it is not ours alone."""
        # Others may pass through, not look: PostgreSQL's own folder inside may belong to `nobody`.
        path = private_folder(path, mode=0o711)
        _close_to_others(path / LOCK)
        lock = os.fdopen(ownership.open_file(path / LOCK, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise LocalError(
                f"Redraft already runs on {path} (process {holder}). "
                f"Stop it (kill {holder}), or start a second one beside it with another --data-dir and --port."
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return cls(path, lock)

    def close(self) -> None:
        self._lock.close()

    def _kept(self) -> dict[str, str | int]:
        try:
            kept: dict[str, str | int] = json.loads(ownership.read_file(self.path / KEPT))
        except FileNotFoundError:
            return {}
        return kept

    def keep(self, name: str, value: str | int) -> None:
        """Remember a value under a name, for this start and all later ones."""
        write_private(self.path / KEPT, json.dumps({**self._kept(), name: value}, indent=2) + "\n")

    def secret(self, name: str) -> str:
        """The password of that name, made up at the first call."""
        value = self._kept().get(name)
        if value is None:
            value = secrets.token_urlsafe(24)
            self.keep(name, value)
        return str(value)

    def port(self, name: str) -> int:
        """A free port for an embedded server, the same as last time if it is still free."""
        value = self._kept().get(name)
        if value is None or not port_is_free(int(value)):
            value = free_port()
            self.keep(name, value)
        return int(value)


def private_folder(path: Path, *, mode: int = 0o700) -> Path:
    """The folder, made if need be, without links on the way. LocalError if it or what is in it is not ours alone."""
    try:
        folder = ownership.real_folder(path)
        ownership.make_folder(folder, mode)
        ours = {os.geteuid()}
        ownership.refuse(folder, ownership.FileFacts.of(folder.lstat()), ours)
        ownership.refuse_strangers(folder, KEPT_HERE, ours)
        # As root it runs as another user, who owns what it keeps.
        ownership.refuse_strangers(folder, ("postgres",), ours | binaries.owners())
    except PermissionError as error:
        raise LocalError(f"{path} belongs to another user. Start as that user, {ELSEWHERE}.") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise LocalError(f"{path} is not a folder. Choose another one with --data-dir.") from error
    return folder


def _close_to_others(lock: Path) -> None:
    """Earlier versions left it as open as the umask had it. It holds nothing that could be believed: it may be kept."""
    with suppress(FileNotFoundError):
        status = lock.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            lock.chmod(0o600)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all: a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    # Created 0600: between a write and a chmod others could read it.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def free_port() -> int:
    """A free TCP port on loopback. Another process may take it first: retry then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now. Connections that still die slowly (TIME_WAIT) do not count."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def hold_port(port: int, host: str) -> socket.socket | None:
    """Hold a port for several processes of ours that will share it, until the result is closed. None: it is taken.

    A port that several may listen at keeps no second group out, so on Linux a name stands for it meanwhile.
    """
    held = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform == "linux":
            # Abstract, see unix(7): it goes with this process, and is seen where the port is seen.
            held.bind(f"\0redraft-api/{host}:{port}")
    except OSError:
        held.close()
        return None
    if port_is_free(port, host):
        return held
    held.close()
    return None
