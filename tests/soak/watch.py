"""What is seen from outside while the load runs: memory of each role, the size of Redis, the queue of edits."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis

from shared import task_names
from tests.benchmarks import parts
from tests.soak.clients import Tally

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One look. Sizes are MiB; None: nobody answered just then."""

    at: float
    accepted: int
    memory: Mapping[str, float]
    redis: float | None
    keys: int | None
    messages: int | None
    queued: int | None


@dataclass
class Watch:
    """Looks when it is told to, and remembers what it saw."""

    root: int
    redis_url: str
    dsn: str
    tally: Tally
    samples: list[Sample] = field(default_factory=list)

    def look(self) -> Sample:
        at = time.monotonic() - self.tally.began
        accepted = self.tally.accepted
        memory = {part: held / MIB for part, held in parts.memory(self.root).items()}
        size, keys, messages = self._redis()
        self.samples.append(Sample(at, accepted, memory, size, keys, messages, self._queued()))
        return self.samples[-1]

    def _redis(self) -> tuple[float | None, int | None, int | None]:
        try:
            with redis.Redis.from_url(self.redis_url, socket_timeout=1, socket_connect_timeout=1) as client:
                info: Any = client.info("memory")
                messages = sum(int(client.llen(name)) for name in task_names.QUEUES)
                return info["used_memory"] / MIB, int(client.dbsize()), messages
        except redis.RedisError:
            return None, None, None

    def _queued(self) -> int | None:
        try:
            with psycopg.connect(self.dsn, connect_timeout=2) as connection:
                found = connection.execute("SELECT count(*) FROM edits WHERE status = 'queued'").fetchone()
                return int(found[0]) if found else None
        except psycopg.Error:
            return None
