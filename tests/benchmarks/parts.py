"""Which process is which part of what is measured, and what each part costs in CPU and memory."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

SERVERS = ("postgres", "valkey")
# The first whose words all stand in the command line wins.
PARTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("postgres", ("postgres",)),
    ("valkey", ("valkey-server",)),
    ("valkey", ("redis-server",)),
    ("wrk", ("wrk",)),
    ("publisher", ("tests.benchmarks.publisher",)),
    ("pgbench", ("pgbench",)),
    ("api", ("uvicorn",)),
    ("flower", ("flower",)),
    ("beat", ("beat",)),
    *(
        (f"worker {queue}", (f"--queues={queue}",))
        for queue in ("edits", "publish", "render", "bulk", "webhooks", "ops")
    ),
    ("worker", ("worker",)),
    ("worker", ("dramatiq",)),
    ("worker", ("tests.benchmarks.peers.on_pgqueuer",)),
    ("supervisor", ("up",)),
)


def _part(process: psutil.Process, inherited: str) -> str:
    words = process.cmdline()
    if not words:
        return inherited
    # Titles that a process gave itself are one word: "postgres: redraft turn", ".../valkey-server 127.0.0.1:6379".
    names = {Path(re.split("[: ]", words[0])[0]).name, *words[1:]}
    return next((part for part, wanted in PARTS if names.issuperset(wanted)), inherited)


def parts(root: int | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """The living descendants of a process (ourselves if not given), each with the part that it belongs to.

    A pool's child whose command line says nothing belongs where its parent does.
    """
    pending = [(child, "other") for child in psutil.Process(root or os.getpid()).children()]
    while pending:
        process, inherited = pending.pop()
        with suppress(psutil.Error):
            part = _part(process, inherited)
            pending += [(child, part) for child in process.children()]
            if process.status() != psutil.STATUS_ZOMBIE:
                yield part, process


class Busy:
    """CPU seconds by part between two moments, those of processes that ended meanwhile included."""

    def __init__(self) -> None:
        self._before = self._spent()

    @staticmethod
    def _spent() -> dict[str, float]:
        spent: dict[str, float] = {}
        for part, process in parts():
            with suppress(psutil.Error):
                # A parent inherits what its ended children used: PostgreSQL's backends come and go.
                spent[part] = spent.get(part, 0.0) + sum(process.cpu_times()[:4])
        return spent

    def since(self) -> dict[str, float]:
        return {part: max(0.0, seconds - self._before.get(part, 0.0)) for part, seconds in self._spent().items()}


def quiet(*, within: float = 20, below: float = 0.15) -> None:
    """Wait until all that we started together uses less than `below` of a core, or `within` seconds have gone by.

    A stack answers before the last of its processes has done its imports, which must not be measured.
    """
    deadline = time.monotonic() + within
    used = below
    while used >= below and time.monotonic() < deadline:
        busy = Busy()
        time.sleep(0.5)  # the time over which the load is taken
        used = sum(busy.since().values()) / 0.5


def memory(root: int) -> dict[str, int]:
    """Bytes by part of a tree. Shared pages are counted once where the kernel can tell (Linux: PSS), else each time."""
    held: dict[str, int] = {}
    for part, process in parts(root):
        with suppress(psutil.Error):
            info = process.memory_full_info()
            held[part] = held.get(part, 0) + getattr(info, "pss", info.rss)
    return held
