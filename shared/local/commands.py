"""The command line of each role, in one place: for `redraft <role>`, for `redraft up` and for the tests."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import shared
from shared.settings import settings

ROOT = Path(shared.__file__).parent.parent
"""Where api/, worker/ and shared/ stand. Roles run there, so that a folder `api` of the caller's is never imported."""

POOLS: Mapping[str, Literal["prefork", "threads"]] = {
    # One process a core, since these compute and hold rows.
    "edits": "prefork",
    "bulk": "prefork",
    "ops": "prefork",
    # Many at once, since these wait for outside services.
    "publish": "threads",
    "render": "threads",
    "webhooks": "threads",
}
"""Every queue, and the kind of pool of its worker."""


API_PROCESSES_AT_MOST = 4
"""So many are chosen by cores. More have to be asked for: each takes memory and connections to PostgreSQL."""


def api_places(port: int, chosen: int, cores: int | None = None) -> Mapping[str, Mapping[str, str]]:
    """The API processes of one port: the name of each, and what its environment has more.

    `chosen`: how many; 0 is half of the cores that this process may use, from one to four.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    many = chosen or min(max(1, cores // 2), API_PROCESSES_AT_MOST)
    if many == 1:
        return {"api": {"REDRAFT_API_PLACE": ""}}
    return {f"api-{number}": {"REDRAFT_API_PLACE": f"{port}/{number}"} for number in range(1, many + 1)}


API_GRACE = 35
"""Seconds that the API gives its open requests at the end, unless told otherwise."""


def api(*, host: str = "127.0.0.1", port: int = 8000, graceful: int = API_GRACE) -> list[str]:
    """One API process. `graceful` is the seconds that open requests get at the end; who waits for an edit takes one."""
    return [
        *(sys.executable, "-m", "uvicorn", "api.app:app", f"--app-dir={ROOT}", f"--host={host}", f"--port={port}"),
        *("--loop=api.http.accepting:Loop", "--http=api.http.protocol:Protocol", "--ws=none"),
        *("--interface=asgi3", "--lifespan=on"),
        # The API logs requests itself, with their ids and without what must not be logged.
        *("--no-access-log", "--no-server-header"),
        # uvicorn would trust X-Forwarded-For from any client on loopback; the API trusts REDRAFT_TRUSTED_PROXIES only.
        "--no-proxy-headers",
        f"--timeout-graceful-shutdown={graceful}",
        f"--log-level={_level()}",
    ]


def worker(queue: str, *, name: str = "") -> list[str]:
    """One worker process for one queue. `name` is the host's part of its name; two on one host need different ones."""
    concurrency = getattr(settings(), f"{queue}_concurrency")
    return [
        *_celery("worker"),
        # The host's name, not the pid: Flower shows a restarted worker as the same one.
        *(f"--queues={queue}", f"--hostname={queue}@{name or socket.gethostname()}"),
        *(f"--pool={POOLS[queue]}", f"--concurrency={concurrency}"),
        # Flower lives on events. Workers need nothing from each other: mingle costs a second at each start.
        *("--task-events", "--without-mingle", "--without-gossip"),
        f"--loglevel={_level()}",
    ]


def beat() -> list[str]:
    # In memory: every period is seconds, and a file would be one more thing that a kill can spoil.
    return [*_celery("beat"), "--scheduler=worker.runtime.scheduler:Scheduler", "--pidfile=", f"--loglevel={_level()}"]


def flower(*, address: str = "127.0.0.1", port: int = 5555, history: Path | None = None) -> list[str]:
    """Flower. Its password comes by `flower_environment`; `history` is the file that keeps its tasks over restarts."""
    kept = [] if history is None else ["--persistent=True", f"--db={history}", "--state_save_interval=30000"]
    # What an operator reads first, first: which posts, and what came of them.
    columns = "--tasks_columns=name,args,state,result,received,runtime,worker,uuid"
    # Its own 100,000 would take some 400 MiB in a flood, and all of them are written anew each time it saves.
    most = "--max_tasks=20000"
    return [*_celery("flower", "worker.runtime.flower"), f"--address={address}", f"--port={port}", columns, most, *kept]


def flower_environment(user: str, password: str) -> dict[str, str]:
    """Flower's password, where other users of the machine cannot read it as they can arguments.

    Raises ValueError for characters that Flower would take for the end of one or the other.
    """
    if not user or not password or ":" in user or "," in user + password:
        raise ValueError("Flower's user and password must not be empty, nor hold a comma; the user no colon either.")
    return {"FLOWER_BASIC_AUTH": f"{user}:{password}"}


def _celery(command: str, module: str = "celery") -> list[str]:
    # As root, as in any plain container, Celery warns of pickled messages at each start; it accepts none here.
    hushed = "-Wignore:You're running the worker with superuser privileges"
    return [sys.executable, hushed, "-m", module, "--app=worker.runtime.app", "--quiet", command]


def _level() -> str:
    return settings().log_level.lower()
