"""The limit of the database: pgbench, PostgreSQL's own load generator, making the same edit without any Python."""

import os
import re
import shutil
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from shared.local import binaries
from tests.benchmarks import data
from tests.benchmarks.ground import Stage, WrongMeasureError
from tests.benchmarks.load import Load
from tests.processes import Processes

SCRIPT: Final = Path(__file__).with_name("limit.sql")
_NUMBER: Final = {
    "transactions": re.compile(r"number of transactions actually processed: (\d+)"),
    "failed": re.compile(r"number of failed transactions: (\d+)"),
    "latency": re.compile(r"latency average = ([\d.]+) ms"),
    "rate": re.compile(r"tps = ([\d.]+)"),
}


def pgbench() -> str:
    """Its path: beside the PostgreSQL that runs, else on PATH. Raises WrongMeasureError if there is none."""
    beside = binaries.postgres_folder() / "pgbench"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("pgbench")
    if found is None:
        raise WrongMeasureError("There is no pgbench beside PostgreSQL or on PATH; install PostgreSQL's client tools")
    return found


def whose() -> str:
    """Which pgbench is used, in words for a reader."""
    return (
        "the embedded PostgreSQL's own" if Path(pgbench()).parent == binaries.postgres_folder() else "the one on PATH"
    )


def edits(stage: Stage, *, clients: int, seconds: float, posts: int = data.POSTS) -> Load:
    """Lock, update, insert, commit from `clients` connections. Raises WrongMeasureError if one failed."""
    where = urlsplit(stage.dsn)
    argv = [
        *(pgbench(), "--no-vacuum", "--protocol=prepared", f"--file={SCRIPT}", f"--define=posts={posts}"),
        *(f"--client={clients}", f"--jobs={min(clients, 2)}", f"--time={max(1, round(seconds))}"),
        *(f"--host={where.hostname}", f"--port={where.port}", f"--username={where.username}", where.path.lstrip("/")),
    ]
    processes = Processes()
    try:
        running = processes.start(argv, PGPASSWORD=unquote(where.password or ""))
        if running.wait(within=seconds + 30) != 0:
            raise WrongMeasureError(f"pgbench failed:\n{running.output()[-4000:]}")
        said = running.output()
    finally:
        processes.close()
    found = {name: pattern.search(said) for name, pattern in _NUMBER.items()}
    if None in found.values():
        raise WrongMeasureError(f"pgbench said nothing that we know:\n{said[-4000:]}")
    numbers = {name: float(match[1]) for name, match in found.items() if match is not None}
    if numbers["failed"]:
        raise WrongMeasureError(f"{numbers['failed']:.0f} of pgbench's transactions failed")
    return Load(
        clients=clients,
        seconds=numbers["transactions"] / numbers["rate"],
        statuses={200: int(numbers["transactions"])},
        errors={},
        mean=numbers["latency"],
        percentiles=(),
    )
