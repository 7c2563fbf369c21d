"""The data folder: who holds it, and what must stay the same from one start to the next (ports and passwords)."""

import fcntl
import json
import os
import secrets
import socket
from pathlib import Path
from typing import IO, Self

from shared.local.errors import LocalError

KEPT = "kept.json"
LOCK = "lock"
STACK_FILE = "stack.json"
"""Where a running stack says where its parts are."""


class DataDir:
    """A folder of ours. Open it once; it is held until `close()` or the end of this process, however that ends."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder if need be and hold it. Raises LocalError if another stack holds it or it is not ours."""
        path = path.absolute()
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                # Others may pass through, not look: PostgreSQL's own folder inside may belong to `nobody`.
                path.chmod(0o711)
            lock = (path / LOCK).open("a+", encoding="utf-8")
        except PermissionError as error:
            raise LocalError(
                f"{path} belongs to another user. Start as that user, or choose another folder with --data-dir."
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise LocalError(f"{path} is not a folder. Choose another one with --data-dir.") from error
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
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return cls(path, lock)

    def close(self) -> None:
        self._lock.close()

    def _kept(self) -> dict[str, str | int]:
        try:
            kept: dict[str, str | int] = json.loads((self.path / KEPT).read_text(encoding="utf-8"))
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
        """A free port for an embedded server, the same as last time if nobody took it since."""
        value = self._kept().get(name)
        if value is None or not port_is_free(int(value)):
            value = free_port()
            self.keep(name, value)
        return int(value)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all: a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    # Created 0600: between a write and a chmod others could read it.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now. Somebody may take it before its user does: retry then."""
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
