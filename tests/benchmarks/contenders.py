"""Who is measured: Redraft as `redraft up` starts it, the peers, and the stack that does nothing."""

import http.client
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.local import commands
from shared.local.datadir import free_port
from tests.benchmarks import data, parts
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.processes import Process, Processes
from tests.waiting import eventually

PEERS = "tests.benchmarks.peers"
READY_WITHIN = 60


@dataclass(frozen=True)
class Running:
    """A contender that answers PATCHes."""

    url: str
    processes: Processes


@dataclass(frozen=True)
class Contender:
    """`app` and `workers` are a peer's; Redraft has neither and is started by its own command."""

    key: str
    name: str
    app: str = ""
    api_processes: int = 1
    workers: Callable[[], Sequence[Sequence[str]]] = tuple
    prepare: Sequence[Sequence[str]] = ()
    """Commands to run first, such as the ones that make a queue's tables."""
    environment: Mapping[str, str] | None = None
    answers_only: bool = False
    """It writes nothing down, so that there is nothing to check in the database."""

    @contextmanager
    def running(self, stage: Stage, folder: Path, **environment: str) -> Iterator[Running]:
        """Start it and wait until a PATCH is answered 200; stop all of it at the end."""
        processes = Processes()
        settings = {**stage.environment, **(self.environment or {}), **environment}
        home = folder / f"turn-{secrets.token_hex(4)}"
        try:
            for command in self.prepare:
                made = processes.start([sys.executable, "-m", *command], **settings)
                if made.wait(within=READY_WITHIN) != 0:
                    raise WrongMeasureError(f"{self.name}: {' '.join(command)} failed:\n{made.output()[-4000:]}")
            url = self._start(processes, settings, home)
            try:
                eventually(lambda: _alive(processes) and patch(url) == 200, within=READY_WITHIN, every=0.1)
                if not self.app:
                    # Written when everything answers, Flower and the other workers too.
                    eventually((home / "stack.json").exists, within=READY_WITHIN, every=0.1)
            except AssertionError as error:
                raise WrongMeasureError(f"{self.name} does not answer 200: {error}\n{processes.report()}") from error
            parts.quiet()
            yield Running(url, processes)
        finally:
            for process in reversed(processes.all):
                _stop(process)
            processes.close()
            shutil.rmtree(home, ignore_errors=True)

    def _start(self, processes: Processes, settings: Mapping[str, str], home: Path) -> str:
        port = free_port()
        if not self.app:
            up = [sys.executable, "-m", "shared.cli.main", "up", f"--port={port}", f"--flower-port={free_port()}"]
            processes.start([*up, f"--data-dir={home}"], **settings)
        else:
            for worker in self.workers():
                processes.start([sys.executable, "-m", *worker], **settings)
            # The same command line as Redraft's own API, so that all stand on the same HTTP stack.
            argv = [f"{PEERS}.{self.app}:app" if word == "api.app:app" else word for word in commands.api(port=port)]
            if self.api_processes > 1:
                argv.append(f"--workers={self.api_processes}")
            processes.start(argv, **settings)
        return f"http://127.0.0.1:{port}"


def _alive(processes: Processes) -> bool:
    dead = [process for process in processes.all if not process.running and process.returncode != 0]
    if dead:
        raise WrongMeasureError(f"{dead[0].name} ended with {dead[0].returncode}:\n{dead[0].output()[-4000:]}")
    return True


def _stop(process: Process) -> None:
    """Ask it to end; who takes too long is killed with its tree by `Processes.close`."""
    if process.running:
        try:
            process.stop(within=20)
        except AssertionError:
            return


def request(url: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """One request with our key; the status, 0 if nobody answers, and the parsed body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=35)
    sent = {"Authorization": f"Bearer {data.SECRET}", "Content-Type": "application/json", **headers}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode(errors="replace")


def patch(url: str, post_id: str = data.post_id(1), caption: str = "") -> int:
    """The status of one PATCH."""
    change = {"caption": caption or f"ready? {secrets.token_hex(8)}"}
    return request(url, "PATCH", f"/v1/posts/{post_id}", change)[0]


def _each_core(command: Callable[[int], Sequence[str]]) -> Callable[[], Sequence[Sequence[str]]]:
    return lambda: [command(number) for number in range(os.cpu_count() or 1)]


REDRAFT = Contender("redraft", "Redraft")
REDRAFT_TWO = Contender("redraft2", "Redraft, 2 API processes", environment={"REDRAFT_API_PROCESSES": "2"})
DIRECT = Contender("direct", "direct", app="direct")
DIRECT_TWO = Contender("direct2", "direct, 2 processes", app="direct", api_processes=2)
PLAIN_CELERY = Contender(
    "celery",
    "plain Celery",
    app="plain_celery",
    # Its documentation's defaults: a process for each core.
    workers=lambda: [("celery", f"--app={PEERS}.plain_celery:celery", "--quiet", "worker", "--loglevel=warning")],
)
DRAMATIQ = Contender(
    "dramatiq",
    "Dramatiq",
    app="on_dramatiq",
    # The default: a process for each core, eight threads in each.
    workers=lambda: [("dramatiq", f"{PEERS}.on_dramatiq")],
)
TASKIQ = Contender(
    "taskiq",
    "taskiq",
    app="on_taskiq",
    workers=lambda: [
        ("taskiq", "worker", f"{PEERS}.on_taskiq:broker", f"--workers={os.cpu_count()}", "--log-level=WARNING"),
    ],
)
PROCRASTINATE = Contender(
    "procrastinate",
    "Procrastinate",
    app="on_procrastinate",
    prepare=[("procrastinate", f"--app={PEERS}.on_procrastinate.queue", "schema", "--apply")],
    workers=_each_core(
        lambda number: (
            *("procrastinate", f"--app={PEERS}.on_procrastinate.queue", "worker", f"--name=bench{number}"),
            *("--concurrency=8", "--delete-jobs=never"),
        )
    ),
)
PGQUEUER = Contender(
    "pgqueuer",
    "PgQueuer",
    app="on_pgqueuer",
    prepare=[(f"{PEERS}.on_pgqueuer", "prepare")],
    workers=_each_core(lambda _: (f"{PEERS}.on_pgqueuer", "worker")),
)
OF_TWO = (REDRAFT_TWO, DIRECT_TWO)
"""Measured at 64 clients only."""

NOTHING = Contender("nothing", "does nothing", app="nothing", answers_only=True)

ALL = (REDRAFT, REDRAFT_TWO, DIRECT, DIRECT_TWO, PLAIN_CELERY, DRAMATIQ, TASKIQ, PROCRASTINATE, PGQUEUER, NOTHING)
