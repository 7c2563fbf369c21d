"""What a run of `redraft reschedule` sends, kept on this machine before it is sent.

A run is one or more bulk jobs. Its folder holds the body of each job, which job was about to be sent, and the id of
each that was. So a run that is killed anywhere can go on, or be undone as a whole. The Idempotency-Key of each request
follows from the run's id: sent again, it starts nothing twice.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from shared.cli.api_client import ArgumentsError
from shared.cli.reschedule_captions import CaptionEdit
from shared.domain.errors import printable
from shared.domain.ids import new_id

PREFIX: Final = "run_"
KEPT: Final = timedelta(days=30)
KEYS_LAST: Final = timedelta(hours=23)
"""Within this time the API certainly knows the keys of a run (docs/api.md says a day)."""
PATIENCE: Final = 120.0
"""Seconds to wait for a request of another command: longer than a batch of captions takes with its repeats."""


class UndoneError(Exception):
    """The run was undone: nothing more of it is to be sent."""


class Run:
    """One run, in its folder. `jobs`: the id of each job that was started, by the number of its part."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.api_url: str = about["apiUrl"]
        self.created_at = datetime.fromisoformat(about["createdAt"])
        self.parts: int = about["parts"]
        self.total: int | None = about["total"]
        self.jobs: dict[int, str] = {}
        self.begun: set[int] = set()
        self._read()

    def _read(self) -> None:
        with suppress(FileNotFoundError):
            for line in (self.folder / "jobs").read_text().splitlines():
                part, _, job_id = line.partition(" ")
                self.begun.add(int(part))
                if job_id:
                    self.jobs[int(part)] = job_id

    @property
    def name(self) -> str:
        """How a person names it in a command: its id, or its folder where that is no usual one."""
        return self.folder.name if self.folder.parent == runs() else str(self.folder)

    @property
    def uncertain(self) -> list[int]:
        """The parts that were about to be sent when the command died. There is one at most."""
        return sorted(self.begun - self.jobs.keys())

    @property
    def keys_are_known(self) -> bool:
        return datetime.now(UTC) - self.created_at < KEYS_LAST

    def key(self, part: int) -> str:
        return f"{self.folder.name}-{part}"

    @property
    def captions_key(self) -> str:
        """What the Idempotency-Keys of its captions begin with."""
        return f"{self.folder.name}-caption"

    def body(self, part: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{part}.json").read_text())
        return found

    @property
    def undone(self) -> bool:
        return self.undone_at is not None

    @property
    def undone_at(self) -> datetime | None:
        """When it was undone; None if it was not."""
        with suppress(FileNotFoundError):
            return datetime.fromtimestamp((self.folder / "undone").stat().st_mtime, UTC)
        return None

    def undo(self) -> None:
        """This run is not to go on: a command that sends it ends before its next request. Waits for the request that
        such a command sends at this moment. Raises ArgumentsError where that takes too long.
        """
        if not self.undone:
            (self.folder / "undone").touch()
        with self.locked():
            pass

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While one request of the run is sent. Raises UndoneError, ArgumentsError."""
        with self.locked():
            self.check_not_undone()
            yield

    def check_not_undone(self) -> None:
        """Raises UndoneError."""
        if self.undone:
            raise UndoneError(f"{self.name} was undone by another command; this one sends nothing more of it")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this lasts, no other command of this machine sends a request of the run; `jobs` is what the file says.

        Raises ArgumentsError.
        """
        with (self.folder / "lock").open("a") as file:
            until = time.monotonic() + PATIENCE
            while not _taken(file.fileno()):
                if time.monotonic() > until:
                    raise ArgumentsError(
                        f"another command is sending {self.name} and does not go on; end that command, then enter this "
                        "one once more"
                    )
                time.sleep(0.05)
            self._read()
            yield

    @property
    def has_captions(self) -> bool:
        return (self.folder / "captions.json").exists()

    def captions(self) -> list[CaptionEdit]:
        """The captions that the run edits, before its jobs begin."""
        with suppress(FileNotFoundError):
            return [CaptionEdit(*one) for one in json.loads((self.folder / "captions.json").read_text())]
        return []

    def begin(self, part: int) -> None:
        """This part is about to be sent."""
        if part not in self.begun:
            self._note(str(part))
            self.begun.add(part)

    def started(self, part: int, job_id: str) -> None:
        """This part is a job now."""
        if part not in self.jobs:
            self._note(f"{part} {job_id}")
            self.jobs[part] = job_id

    def _note(self, line: str) -> None:
        # One write: of two lines the first is whole, whatever ends the command between them.
        with (self.folder / "jobs").open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())


def _taken(descriptor: int) -> bool:
    """Whether the lock of this file is ours now. It is free as soon as its process has ended, however that ended."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks. The mark `undone` alone serves there.
        return True
    return True


def runs() -> Path:
    """Where runs are kept."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path.home() / ".local" / "state") / "redraft" / "runs"


def create(
    api_url: str, bodies: Iterable[dict[str, Any]], total: int | None, captions: Sequence[CaptionEdit] = ()
) -> Run:
    """A new run with all that it is going to send. `total`: posts, where that is known.

    Where the usual folder cannot be written, another one serves. Raises ArgumentsError where none can.
    """
    try:
        folder = _folder()
        parts = 0
        for parts, body in enumerate(bodies, 1):
            _write(folder / f"{parts - 1}.json", body)
        if captions:
            _write(folder / "captions.json", captions)
        about = {
            "apiUrl": api_url,
            "createdAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "parts": parts,
            "total": total,
        }
        _write(folder / "run.json", about)
    except OSError as error:
        raise ArgumentsError(
            f"the run cannot be kept on this machine ({error.strerror}); set XDG_STATE_HOME to a folder with room"
        ) from error
    return Run(folder, about)


def find(name: str) -> Run:
    """The run of this id, or in this folder. Raises ArgumentsError."""
    folder = Path(name) if os.sep in name else runs() / name
    try:
        return Run(folder, json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        raise ArgumentsError(
            f"there is no run {printable(name)} on this machine; its jobs are in: redraft jobs list"
        ) from None


def kept(api_url: str) -> list[Run]:
    """The runs of this machine that went to this API, in no order. What is no run, or half of one, is left out."""
    found = []
    for folder in runs().glob(f"{PREFIX}*"):
        with suppress(ArgumentsError):
            run = find(folder.name)
            if run.api_url == api_url:
                found.append(run)
    return found


def check_place(run: Run, api_url: str) -> None:
    """Raises ArgumentsError for a run of another API."""
    if run.api_url != api_url:
        raise ArgumentsError(f"this run went to {run.api_url}, and REDRAFT_API_URL or stack.json says {api_url}")


def _folder() -> Path:
    run_id = new_id(PREFIX.rstrip("_"))
    home = runs()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(home)
        folder = home / run_id
        folder.mkdir(mode=0o700)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="redraft-")) / run_id
        folder.mkdir(mode=0o700)
    return folder


def _forget_old(home: Path) -> None:
    oldest = (datetime.now(UTC) - KEPT).timestamp()
    for folder in home.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)


def _write(path: Path, value: object) -> None:
    with path.open("x") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
