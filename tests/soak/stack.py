"""The stack that is soaked: all that `redraft up` starts, on embedded servers of its own, with a publisher of ours."""

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, pool

from shared.local.datadir import free_port
from tests.processes import Process, Processes
from tests.reference_services.client import Played, Reference

PREFIX = "redraft-soak-"
# Shorter than by default, so that a call that is lost is taken up again within the run, and not after it.
TIMEOUT = "REDRAFT_SERVICE_TIMEOUT"
TIMES = {TIMEOUT: "5", "REDRAFT_CLAIM_EXPIRY": "12"}
TRACEBACK = "Traceback (most recent call last)"
SURPRISES = ("raised unexpected", "unexpected_error", "StaleWriteError")
MOST = 160


@dataclass
class Stack:
    """A running one. `folder` is on a disk, and gone at the end. `opponent`: the publisher, if it plays against us."""

    folder: Path
    up: Process
    reference: Reference
    api_port: int
    places: dict[str, Any]
    engine: Engine
    opponent: Played | None = None

    @property
    def dsn(self) -> str:
        """The database in libpq's words."""
        return str(self.places["databaseUrl"]).replace("+psycopg", "", 1)

    @property
    def redis_url(self) -> str:
        return str(self.places["redisUrl"])

    def surprises(self) -> Counter[str]:
        """What the logs of all roles tell that nobody expected, each with how often it came."""
        return surprises_in(self.up.output().splitlines())


def surprises_in(lines: Iterable[str]) -> Counter[str]:
    """`lines` as `redraft up` prints them: the role, a bar, what the role said. A traceback counts by its last line,
    with the role.
    """
    found: Counter[str] = Counter()
    open_tracebacks: set[str] = set()
    for line in lines:
        role, _, said = line.partition("|")
        role, said = role.strip(), said.removeprefix(" ")
        if role in open_tracebacks and said[:1].strip():
            open_tracebacks.discard(role)
            found[f"{role}: {said[:MOST]}"] += 1
        elif TRACEBACK in said:
            if said.startswith("{"):
                inside = next(value for value in json.loads(said).values() if TRACEBACK in str(value))
                found[f"{role}: {str(inside).strip().splitlines()[-1][:MOST]}"] += 1
            else:
                open_tracebacks.add(role)
        else:
            found.update(words for words in SURPRISES if words in said)
    found.update(f"{role}: {TRACEBACK}" for role in open_tracebacks)
    return found


@contextmanager
def running(parent: Path, opponent_seed: int | None = None) -> Iterator[Stack]:
    """Start it and wait until everything answers; afterwards nothing of it is left. `opponent_seed`: publish with an
    opponent that plays by this seed.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o711)  # PostgreSQL may have to run as `nobody`
    processes = Processes()
    try:
        reference, opponent = Reference(processes), None
        services = reference.environment
        if opponent_seed is not None:
            opponent = Played(processes, opponent_seed, folder / "opponent", patience=float(TIMES[TIMEOUT]))
            services |= {"REDRAFT_PUBLISHER_URL": opponent.environment["REDRAFT_PUBLISHER_URL"]}
        port = free_port()
        argv = [sys.executable, "-m", "shared.cli.main", "up", f"--data-dir={folder / 'data'}"]
        up = processes.start([*argv, f"--port={port}", f"--flower-port={free_port()}"], **services, **TIMES)
        up.says("Redraft is up", within=90)
        places = json.loads((folder / "data" / "stack.json").read_text())
        engine = create_engine(places["databaseUrl"], poolclass=pool.NullPool)
        yield Stack(folder, up, reference, port, places, engine, opponent)
        up.stop(within=60)
    except BaseException:
        print(processes.report())
        raise
    finally:
        processes.close()
        shutil.rmtree(folder, ignore_errors=True)
