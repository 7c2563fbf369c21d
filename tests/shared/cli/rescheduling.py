"""A stack for `redraft reschedule` and `redraft jobs`, and the command at a terminal of its own."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from typer.testing import CliRunner, Result

from shared.cli.main import app
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.stack import Running, running
from tests.waiting import eventually

HEADER = "postId,scheduledTime,timezone"
numbers = count()


@contextmanager
def started(postgres: PostgreSQL, valkey: Valkey, *queues: str) -> Iterator[Running]:
    number = next(numbers)
    url = postgres.create_database(f"cli_reschedule_{number}", template=TEMPLATE)
    with running(url, empty_database(valkey), *queues) as stack:
        yield stack


def environment(stack: Running) -> dict[str, str]:
    assert stack.api is not None
    return {"REDRAFT_API_URL": stack.api.url, "REDRAFT_API_KEY": factories.SECRET}


def redraft(stack: Running, *arguments: str, stdin: str | None = None) -> Result:
    """In this process, without a terminal, as a script runs it."""
    return CliRunner().invoke(app, list(arguments), env=environment(stack), input=stdin)


def command(stack: Running, *arguments: str, stdin: str | None = None) -> Result:
    return redraft(stack, "reschedule", *arguments, stdin=stdin)


def _controlled() -> None:
    """Make the terminal the one whose Ctrl-C interrupts this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, stack: Running, arguments: Sequence[str], **more: str) -> None:
        ours, theirs = pty.openpty()
        argv = [sys.executable, "-m", "shared.cli.main", *arguments]
        self._shown, self._ours = b"", ours
        given = {**os.environ, **environment(stack), "TERM": "xterm-256color", "COLUMNS": "120"} | more
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=given,
            start_new_session=True,
            preexec_fn=_controlled,  # noqa: PLW1509  -- an ioctl; nothing else runs in this test
        )
        os.close(theirs)
        os.set_blocking(ours, False)

    def shown(self) -> str:
        try:
            while more := os.read(self._ours, 65536):
                self._shown += more
        except (BlockingIOError, OSError):
            pass  # nothing more for now; EIO once the command has ended
        return self._shown.decode(errors="replace")

    def shows(self, words: str) -> None:
        eventually(lambda: words in self.shown(), within=30, because=f"the terminal shows {words!r}")

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        eventually(lambda: self.process.poll() is not None, within=30, because="the command ends")
        self.shown()
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def at_a_terminal(stack: Running, *arguments: str, **more: str) -> Iterator[Terminal]:
    terminal = Terminal(stack, ["reschedule", *arguments], **more)
    try:
        yield terminal
    finally:
        terminal.close()


def written(folder: Path, *lines: str) -> str:
    path = folder / "moves.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    return str(path)
