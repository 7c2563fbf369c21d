"""The sample of docs/services.md as real processes, whole or with a change."""

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.ports import free_port
from tests.processes import Process, Processes
from tests.reference_services import verification
from tests.reference_services.under_test import Publisher
from tests.waiting import eventually

PAGE = "docs/services.md"
SECRET = "whsec_page"
NAMES = ("signatures.py", "demo_platform.py", "publisher.py")
Change = tuple[str, str]
GUARD = "if status or key in working"
LOOK_UP = "(None if new else find(key)) or publish"

ID = "uuid.uuid4().hex[:12]"
WORK = 'time.sleep(0.25)\n    with OUT.open("a")'

AFTER = "    time.sleep(0.25)\n    return made"
HOLD = "    while pathlib.Path('hold').exists(): time.sleep(0.01)\n    return made"

ID_OF_THE_KEY: Change = (ID, "key[-12:]")
NO_DEDUP: tuple[Change, ...] = ((GUARD, "if False"), (LOOK_UP, "publish"))


@dataclass
class Sample:
    """The page's publisher as a process, in a folder of its own, with changes to its code."""

    folder: Path
    processes: Processes
    port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/publish"

    @property
    def effects(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "platform.jsonl").read_text().splitlines()]

    def write(self, *changes: Change) -> None:
        code = [block.text for block in blocks(PAGE) if block.info == "python"]
        for sound, broken in changes:
            assert any(sound in text for text in code), sound
            code = [text.replace(sound, broken) for text in code]
        for name, text in zip(NAMES, code, strict=True):
            (self.folder / name).write_text(text)

    def start(self) -> None:
        command = ["sh", "-c", f"cd '{self.folder}' && exec '{sys.executable}' publisher.py"]
        process = self.process = self.processes.start(command, PORT=str(self.port), REDRAFT_SERVICE_SECRET=SECRET)

        def listens() -> bool:
            assert process.running, process.output()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        eventually(listens, within=20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def hold(self) -> None:
        """From now on a publish stops between its effect and its answer."""
        (self.folder / "hold").touch()

    def restart(self) -> None:
        """Die with a publish that had its effect and no answer, and come back."""
        before = len(self.answered())
        eventually(lambda: len(self.effects) > before, within=20)
        self.kill()
        (self.folder / "hold").unlink()
        self.start()

    def answered(self) -> list[str]:
        """The keys that went out and have an answer on disk; all effects where keys are kept in memory."""
        if not (self.folder / "publisher.db").exists():
            return [one["key"] for one in self.effects]
        with closing(sqlite3.connect(self.folder / "publisher.db")) as db:
            return [key for (key,) in db.execute("SELECT key FROM keys WHERE status = 200")]


class Interrupted(Publisher):
    """Holds the platform before the request that a restart cuts off."""

    hold: Callable[[], None]

    def give_up(self, body: str, key: str) -> None:
        if self.due[key].missing == verification.NOT_LOOKED_UP:
            self.hold()
        super().give_up(body, key)


@pytest.fixture
def sample(processes: Processes, tmp_path: Path) -> Sample:
    return Sample(tmp_path, processes)


def publisher(sample: Sample, *, effects: bool = False, restart: bool = False, patience: float = 10.0) -> Publisher:
    one = Interrupted(
        sample.url, SECRET, patience=patience, rounds=2, settle=0.2,
        effects_at=str(sample.folder / "platform.jsonl") if effects else None,
        restart=sample.restart if restart else None,
    )  # fmt: skip
    one.hold = sample.hold
    return one
