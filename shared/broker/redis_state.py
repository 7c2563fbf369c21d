"""Whether Redis takes writes and can save them: a Redis that answers questions may still refuse every doorbell."""

from dataclasses import dataclass
from typing import Any, Final

import redis

from shared.broker import redis_connection

TRIAL_KEY: Final = "redraft:trial"
TRIAL_KEPT: Final = 10
"""Seconds after which Redis forgets the key of a trial write by itself."""


@dataclass(frozen=True, slots=True)
class RedisState:
    """What Redis says of itself. `refuses`: why it refused a trial write, empty where it took it. `saving_fails`: it
    could not write to its disk. `used`, `most`: bytes of memory; `most` is 0 where there is no limit.
    """

    refuses: str
    saving_fails: bool
    used: int
    most: int
    policy: str
    append_only: bool


def read() -> RedisState:
    """Ask, and try one write. Raises redis.RedisError where Redis does not answer."""
    client = redis_connection.client()
    memory: dict[str, Any] = client.info("memory")
    disk: dict[str, Any] = client.info("persistence")
    return RedisState(
        refusal(client),
        # With `appendonly yes` too: after a snapshot that failed Redis refuses writes.
        "err" in (disk.get("aof_last_write_status"), disk.get("rdb_last_bgsave_status")),
        int(memory.get("used_memory", 0)),
        int(memory.get("maxmemory", 0)),
        str(memory.get("maxmemory_policy", "unknown")),
        bool(int(disk.get("aof_enabled", 0))),
    )


def refusal(client: redis.Redis) -> str:
    """Why Redis refuses a trial write; empty where it takes it."""
    try:
        client.set(TRIAL_KEY, "trial", ex=TRIAL_KEPT)
    except redis.ResponseError as error:
        return str(error).partition("\n")[0]
    return ""
