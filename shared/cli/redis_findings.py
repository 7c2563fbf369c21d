"""What `redraft doctor` finds of Redis: whether it takes writes, and whether it forgets or drops messages.

Pure, as shared/cli/findings.py.
"""

from collections.abc import Iterable

from shared.cli.facts import Finding, RedisFacts


def of_redis(redis: RedisFacts) -> Iterable[Finding]:
    """What is wrong with it."""
    if redis.policy != "noeviction":
        yield Finding(
            "redis_eviction",
            f"Redis may drop messages when it is full (maxmemory-policy {redis.policy})",
            "Set `maxmemory-policy noeviction`, in its configuration and with CONFIG SET.",
        )
    if redis.saved in ("nothing", "rdb"):
        yield Finding(
            "redis_persistence",
            "Redis keeps nothing on disk: a restart forgets every message"
            if redis.saved == "nothing"
            else "Redis keeps snapshots only: a crash forgets the messages since the last one",
            "Set `appendonly yes`. Nothing is lost without it, but after each restart edits and publishes wait for the "
            "rescue.",
        )
    if redis.refuses:
        yield Finding(
            "redis_refuses_writes",
            f"Redis refuses writes: {redis.refuses}",
            f"Edits are accepted and safe, but no worker is woken until Redis takes writes again. {_cause(redis)}",
        )
    if redis.saving_fails:
        yield Finding(
            "redis_saving_fails",
            "Redis cannot write to its disk",
            "Look into its log; a full disk is the usual reason. It may refuse messages until then.",
        )
    if redis.most and redis.used > redis.most * 0.9 and not redis.refuses:
        yield Finding(
            "redis_memory",
            f"Redis uses {_size(redis.used)} of the {_size(redis.most)} of memory that it may",
            "Raise maxmemory, or find what else lives in it: Redraft needs a few megabytes.",
        )


def _cause(redis: RedisFacts) -> str:
    """Why Redis refuses writes, as far as its own numbers tell."""
    if redis.most and redis.used >= redis.most * 0.9:
        used = f"It uses {_size(redis.used)}, and its maxmemory is {_size(redis.most)}."
        return f"{used} Raise maxmemory with CONFIG SET, or find what else lives in it."
    if redis.saving_fails:
        return "It cannot write to its disk: a full disk is the usual reason."
    return "Its memory or its disk is full, or REDRAFT_REDIS_URL names a replica."


def _size(number: int) -> str:
    """`512 B`, `1.5 MB`."""
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
