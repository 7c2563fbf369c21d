"""On what it was measured: the machine, its disk's commit, and the versions of everything that takes part."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import psycopg
import redis

from tests.benchmarks.ground import Ground, filesystem

PACKAGES = (
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "sqlalchemy", "psycopg", "redis"),
    *("celery", "kombu", "flower", "dramatiq", "taskiq", "taskiq-redis", "procrastinate", "pgqueuer"),
)
# What decides how fast a commit is; a reader wants to see that nobody turned it off.
POSTGRES_SETTINGS = (
    *("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size"),
    *("autovacuum", "max_connections"),
)
VALKEY_SETTINGS = ("appendonly", "appendfsync", "maxmemory-policy")
FLUSHES = 200


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def flush_milliseconds(folder: Path) -> float:
    """The median time of what each commit waits for: 8 kB written and flushed to the disk."""
    path = folder / "flush"
    block = os.urandom(8192)
    flush = getattr(os, "fdatasync", os.fsync)
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            file.write(block)
            flush(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return statistics.median(times)


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def describe(ground: Ground) -> Sequence[tuple[str, str]]:
    """Pairs for a table. Nothing in them names this machine, its users or its folders."""
    memory = psutil.virtual_memory().total / 2**30
    one_minute, _, _ = psutil.getloadavg()
    cores = psutil.cpu_count() or 1
    quiet = "" if one_minute < cores / 4 else ": **not a quiet machine, take the figures with care**"
    with psycopg.connect(ground.postgres.url("postgres").replace("+psycopg", "", 1)) as connection:
        [(postgres,)] = connection.execute("SHOW server_version")
        chosen = {name: connection.execute(f"SHOW {name}".encode()).fetchall() for name in POSTGRES_SETTINGS}
    with redis.Redis.from_url(ground.valkey.url()) as client:
        info = client.info("server")
        kept = client.config_get(*VALKEY_SETTINGS)
    return [
        ("processor", f"{processor()}, {cores} cores"),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("disk", f"{filesystem(ground.folder)}, 8 kB flushed in {flush_milliseconds(ground.folder):.2f} ms (median)"),
        ("load average before the run", f"{one_minute:.2f}{quiet}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("PostgreSQL", f"{postgres}: " + ", ".join(f"{name} {value}" for name, [(value,)] in chosen.items())),
        (
            f"{'Valkey' if 'valkey_version' in info else 'Redis'}",
            f"{info.get('valkey_version', info['redis_version'])}: "
            + ", ".join(f"{name} {value}" for name, value in kept.items()),
        ),
        ("packages", ", ".join(f"{name} {number}" for name, number in versions().items())),
    ]
