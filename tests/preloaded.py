"""Starts the roles of a test as forks of one process that has imported their libraries already.

A role takes about two seconds of CPU to start. Nearly all of that is the import of Celery, SQLAlchemy, FastAPI and
their like, and then of our own modules. A run of the tests starts some thousand roles. What is imported beforehand
reads no setting. The few modules of ours that do are imported by each role itself, with its own environment.

`PreloadedProcess` has the part of `subprocess.Popen` that tests/processes.py uses. Only Linux gets it. Elsewhere, and
for any other command, tests/processes.py starts a process in the usual way.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

import api
import shared
import worker
from shared.local import die_with_parent
from shared.telemetry.code_version import code_version

ROOT: Final = Path(__file__).parent.parent

LIBRARIES: Final = (
    "alembic.config", "celery.bin.celery", "celery.bin.worker", "celery.concurrency.prefork",
    "celery.concurrency.thread", "celery.fixups.django", "celery.loaders.app", "celery.worker.components",
    "celery.worker.consumer", "email.mime.text", "fastapi", "fastapi.openapi.utils", "flower.command", "httptools",
    "jinja2", "kombu.transport.redis", "prometheus_client", "prometheus_client.multiprocess", "psutil", "psycopg",
    "psycopg_binary", "pydantic_settings", "redis.asyncio", "sqlalchemy.dialects.postgresql.psycopg",
    "starlette.middleware", "structlog", "uvicorn.lifespan.on", "uvicorn.main", "uvloop", "zoneinfo",
)  # fmt: skip
READ_SETTINGS: Final = frozenset(
    {"api.app", "api.health", "worker.runtime.app", "worker.runtime.flower", "worker.tasks"}
)
"""Our modules that read settings when they are imported (tests/test_preloaded.py holds this equal)."""
MODULES: Final = frozenset({"uvicorn", "celery", "shared.cli.main"})
"""What may be run so: `python -m` one of these."""
REQUEST: Final = 1 << 17


def possible(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a command can be started so: a role or a command of `redraft`, with nothing that is read at a start."""
    read_at_start = any(
        name.startswith(("LD_", "PYTHON")) and os.environ.get(name) != value and name != "PYTHONUNBUFFERED"
        for name, value in environment.items()
    )
    return die_with_parent.KERNEL_KILLS and argv[0] == sys.executable and not read_at_start and _module(argv) in MODULES


def _module(argv: Sequence[str]) -> str:
    rest = [part for part in argv[1:] if not part.startswith("-W")]
    return rest[1] if rest[:1] == ["-m"] else ""


class PreloadedProcess:
    """A role in a process of its own, its output in `log`. Use it as a `subprocess.Popen`."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, log: IO[bytes]) -> None:
        self.returncode: int | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            request = json.dumps({"argv": list(argv), "environment": dict(environment), "cwd": str(cwd)}).encode()
            assert len(request) < REQUEST, "this environment is too large to be sent"
            socket.send_fds(_server(), [request], [log.fileno(), theirs.fileno()])
        self._answers = ours
        self.pid = int(self._read())

    def _read(self) -> bytes:
        line = self._answers.recv(64)
        if not line:
            raise RuntimeError("the process that starts roles has ended")
        return line

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._read())
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> socket.socket:
    """The process that starts roles; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * REQUEST)
    with theirs:
        command = die_with_parent.command([sys.executable, "-m", "tests.preloaded", str(theirs.fileno())])
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def ours() -> list[str]:
    """Our modules that a role or a command may import, but for the one that a command runs as `__main__`."""
    names = [
        module.name
        for package in (api, shared, worker)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [name for name in names if name != "shared.cli.main" and not name.startswith("shared.store.migrations.")]


def serve(requests: socket.socket) -> None:
    """Start what is asked for, and say how each process ended, until the one that asks has gone."""
    for name in (*LIBRARIES, *(name for name in ours() if name not in READ_SETTINGS)):
        importlib.import_module(name)
    # Which is the same for all of them: each would read every file of ours for it.
    code_version()
    gc.collect()
    gc.freeze()
    ended, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    running: dict[int, socket.socket] = {}
    awaited: list[socket.socket | int] = [requests, ended]
    while True:
        ready, _, _ = select.select(awaited, [], [])
        if ended in ready:
            os.read(ended, 4096)
            _say_who_ended(running)
        if requests in ready:
            request, descriptors, _, _ = socket.recv_fds(requests, REQUEST, 2)
            if not request:
                return
            log, answers = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for one in (requests, *running.values()):
                    one.close()
                for descriptor in (ended, wakes, answers):
                    os.close(descriptor)
                _become(json.loads(request), log)
            os.close(log)
            running[pid] = socket.socket(fileno=answers)
            running[pid].send(str(pid).encode())


def _say_who_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as answers, suppress(OSError):
            answers.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, Any], log: int) -> None:
    """In a fork: run the module of a command line as `python -m` does, and end with it."""
    code = 1
    try:
        os.setsid()
        die_with_parent.die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        # For mypy the names with underscores are final. This process needs new ones: their descriptors have changed.
        sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # type: ignore[misc]  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # type: ignore[misc]  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
        argv = request["argv"]
        for option in argv[1 : argv.index("-m")]:
            warnings.filterwarnings("ignore", re.escape(option.removeprefix("-Wignore:")))
        module, sys.argv = _module(argv), argv[argv.index("-m") + 1 :]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - whatever it is, nothing of this fork may go on in the server's loop
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> None:
    """End as an interpreter does: its threads awaited, its exit functions called, its output written."""
    with suppress(BaseException):
        import threading  # noqa: PLC0415

        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(BaseException):
        atexit._run_exitfuncs()
    with suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
