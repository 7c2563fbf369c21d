"""Real processes for tests: start one, wait for a condition with a deadline, kill, freeze or stop it, read its output.

    from tests.waiting import eventually

    def test_something(processes, database_url, redis_url):
        worker = processes.start("worker", "edits", REDRAFT_DATABASE_URL=database_url, REDRAFT_REDIS_URL=redis_url)
        eventually(lambda: "ready" in worker.output(), within=30)
        worker.kill()

The fixture `processes` (tests/conftest.py) ends whatever is left after each test and prints the output of a failed one.
Everything started here also dies with pytest, however that ends.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

import psutil
import psycopg
from psycopg import sql

from shared.local import commands, die_with_parent
from shared.local.datadir import LOCK, DataDir
from shared.local.postgres import FOR_TESTS_ONLY, USER, PostgreSQL
from shared.local.valkey import Valkey
from tests import preloaded
from tests.ports import free_port
from tests.preloaded import PreloadedProcess
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent


def planted_api(module: str, port: int) -> list[str]:
    """The command of an API with what a module of tests plants in it. The module's `app` is the API's."""
    return [f"{module}:app" if part == "api.app:app" else part for part in commands.api(port=port)]


def marked(mark: str) -> list[str]:
    """The living processes whose environment holds `mark`, as "pid command": who is left of a stack started with it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().values():
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
    return found


class Process:
    """A running process with its own session. Its pool and other descendants are its tree."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path = ROOT,
        preload: bool = False,
    ) -> None:
        """`command` is made by `die_with_parent.command`, so that it dies with pytest. With `preload` it is the
        bare one, and a fork of tests/preloaded.py runs it.
        """
        self.name = name
        self.port: int | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._popen: subprocess.Popen[bytes] | PreloadedProcess
        if preload:
            self._popen = PreloadedProcess(command, environment, cwd, self._log)
        else:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def url(self) -> str:
        """Where an API or Flower started here listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._popen.poll()

    def output(self) -> str:
        """All that it has said so far, both streams, in order."""
        size = self._log.seek(0, os.SEEK_END)
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def tree(self) -> list[int]:
        """The pids of its living descendants, without its own."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        """To the process itself, not its tree."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the process itself, and wait for its end. What its tree does then is the test's question."""
        self._popen.kill()
        self._popen.wait()

    def kill_tree(self) -> None:
        """SIGKILL to all of it, a power cut."""
        victims = [self.pid, *self.tree()]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def freeze(self) -> None:
        """SIGSTOP to it and its tree."""
        for pid in (self.pid, *self.tree()):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to it and its tree."""
        for pid in (*self.tree(), self.pid):
            os.kill(pid, signal.SIGCONT)

    def stop(self, *, within: float = 10) -> int:
        """SIGTERM, then its exit code: 0 after a clean end. AssertionError if it takes longer."""
        self._popen.terminate()
        return self.wait(within=within)

    def wait(self, *, within: float) -> int:
        """Its exit code, once it ended by itself."""
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within} s:\n{self.output()[-4000:]}") from None

    def says(self, text: str, *, within: float) -> None:
        """Wait until its output holds `text`."""

        def said() -> bool:
            if text in self.output():
                return True
            if not self.running:
                raise RuntimeError(
                    f"{self.name} ended with {self.returncode} unsaid {text!r}:\n{self.output()[-4000:]}"
                )
            return False

        eventually(said, within=within, because=f"{self.name} says {text!r}")

    def close(self) -> None:
        self.kill_tree()
        self._log.close()


class Processes:
    """Starts processes for one test and ends them with it."""

    def __init__(self) -> None:
        self.all: list[Process] = []

    def start(self, role: str | Sequence[str], *arguments: str, **environment: str) -> Process:
        """Start a role by its name, or any command line.

        - `start("api")`: one API process on a free port (`.url`); wait for it with `eventually`.
        - `start("worker", "edits")`: one worker process for that queue. More `arguments` go on its command line
          (`"--concurrency=1"`, `"--include=tests.faults.crashes"`).
        - `start("beat")`, `start("flower")`.
        - `start([sys.executable, "-c", "..."])`: anything.

        `environment` comes over that of pytest, which holds no REDRAFT_ setting.
        """
        argv, port, name = self._command(role, arguments)
        whole = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        preload = preloaded.possible(argv, whole)
        process = Process(name, argv if preload else die_with_parent.command(argv), whole, preload=preload)
        process.port = port
        self.all.append(process)
        return process

    def _command(self, role: str | Sequence[str], arguments: Sequence[str]) -> tuple[Sequence[str], int | None, str]:
        if not isinstance(role, str):
            return [*role, *arguments], None, Path(role[0]).name
        if role == "api":
            port = free_port()
            # Under a watchdog (tests/watched_api.py), otherwise as it is.
            return [*planted_api("tests.watched_api", port), *arguments], port, "api"
        if role == "worker":
            queue, *more = arguments
            return [*commands.worker(queue), *more], None, queue
        if role == "beat":
            return [*commands.beat(), *arguments], None, "beat"
        if role == "flower":
            port = free_port()
            return [*commands.flower(port=port), *arguments], port, "flower"
        raise ValueError(f"no role {role!r}")

    def report(self) -> str:
        """The end of each one's output, for a failure's message."""
        return "\n".join(f"--- {process.name} ({process.pid}) ---\n{process.output()[-8000:]}" for process in self.all)

    def close(self) -> None:
        for process in reversed(self.all):
            process.close()
        self.all.clear()


class Server:
    """A PostgreSQL or Valkey of the tests' own, which one test may kill, freeze and start again at the same URL."""

    def __init__(self, server: PostgreSQL | Valkey) -> None:
        self.server = server
        self.url = server.url()
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The running server: `kill()`, `freeze()`, `thaw()`, `signal(...)` it."""
        assert self._process is not None, "start() it first"
        return self._process

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        if self._process is not None:
            self._process.close()
        self.server.prepare()
        child = self.server.child()
        self._process = Process(child.name, child.command(), child.starts_in() or os.environ, cwd=Path("/"))

        def answers() -> bool:
            if not self.process.running:
                raise RuntimeError(f"{child.name} ended: {self.process.output()[-4000:]}")
            return self.server.answers()

        eventually(answers, within=30, because=f"{child.name} answers")

    def stop(self) -> None:
        """A clean shutdown: data on disk, clients told."""
        self.process.signal(self.server.child().stop_signal)
        self.process.wait(within=30)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()


MEMORY = Path("/dev/shm")  # noqa: S108 - each folder in it is made by mkdtemp
ROOM = 4 * 1024**3
"""Bytes: what the servers of a whole run need, twice over."""
PREFIX = "redraft-tests-"


@cache
def _folder_of_servers() -> Path | None:
    """Memory where it has room, else None, the usual place: in memory a copy of a database costs a fifth of the CPU."""
    if "TMPDIR" in os.environ or not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return None
    _remove_what_killed_runs_left()
    return MEMORY if shutil.disk_usage(MEMORY).free > ROOM else None


def _remove_what_killed_runs_left() -> None:
    # Younger ones may be between the close of a lock by a test and its next holder.
    long_ago = time.time() - 600
    for folder in MEMORY.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.stat().st_mtime < long_ago:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def data_dir() -> Iterator[DataDir]:
    """A folder for servers that goes away with its test. Not pytest's own tmp_path: that is closed to `nobody`."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_folder_of_servers()))
    path.chmod(0o711)
    data = DataDir.open(path)
    try:
        yield data
    finally:
        data.close()
        shutil.rmtree(path, ignore_errors=True)


CHEAP = {
    **FOR_TESTS_ONLY,
    # Each end of a database looks at every page of these buffers.
    "shared_buffers": "64MB",
    # The log stands in memory.
    "max_wal_size": "512MB",
    # In the data folder, which goes with its test. A server that is killed leaves other segments in memory for good.
    "dynamic_shared_memory_type": "mmap",
}


def _make_logins_cheap(server: PostgreSQL) -> None:
    """Store the same password with one round of hashing, not 4,096: these cost a client 3 ms at each connection."""
    with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        password = sql.Literal(server.password)
        connection.execute(sql.SQL("ALTER USER {} PASSWORD {}").format(sql.Identifier(USER), password))


@contextmanager
def postgres(**settings: str) -> Iterator[Server]:
    """A PostgreSQL of one's own, running, with no database of ours in it yet. `settings` are `-c name=value`."""
    with data_dir() as data:
        yield from _running(lambda: PostgreSQL(data, port=free_port(), settings={**CHEAP, **settings}))


@contextmanager
def valkey(**settings: str) -> Iterator[Server]:
    """A Valkey of one's own, running, with an append-only file unless `settings` say `appendonly="no"`."""
    with data_dir() as data:
        yield from _running(lambda: Valkey(data, port=free_port(), settings=settings))


def _running(make: Callable[[], PostgreSQL | Valkey]) -> Iterator[Server]:
    for attempt in range(3):
        server = Server(make())
        try:
            server.start()
            break
        except RuntimeError as error:
            server.close()
            # Somebody took the port between our look and its start: take another one.
            if "in use" not in str(error) or attempt == 2:
                raise
    try:
        if isinstance(server.server, PostgreSQL):
            _make_logins_cheap(server.server)
        yield server
    finally:
        server.close()
