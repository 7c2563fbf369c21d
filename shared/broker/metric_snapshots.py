"""What processes have counted, as they lay it down in Redis for any API process to show (docs/decisions/0007)."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import redis
from prometheus_client.metrics_core import Metric
from pydantic_core import from_json, to_json

from shared.broker import redis_connection

PERIOD = 2.0
"""Seconds between two snapshots of a process."""

KEPT_FOR = 30
"""Seconds for which a process's metrics are shown after its last snapshot."""

NAMES = "redraft:figures"

Snapshot = list[tuple[str, list[tuple[str, dict[str, str], float]]]]
"""Families by name, each with its samples: name, labels, value."""


def snapshot_of(families: Iterable[Metric]) -> Snapshot:
    """Families as they lie in Redis."""
    return [
        (family.name, [(sample.name, sample.labels, sample.value) for sample in family.samples]) for family in families
    ]


def write(name: str, families: Iterable[Metric]) -> None:
    """Lay down what one process has counted, as far as Redis is there. `name`: its own, `edits@host/0`."""
    with suppress(redis.RedisError), redis_connection.client().pipeline(transaction=False) as together:
        together.set(f"{NAMES}:{name}", to_json(snapshot_of(families)), ex=KEPT_FOR)
        together.sadd(NAMES, name)
        together.execute()


def read() -> list[tuple[str, Snapshot]]:
    """The snapshots of the last KEPT_FOR seconds, by name. Raises redis.RedisError. Expired names are removed."""
    client = redis_connection.client()
    known: Any = client.smembers(NAMES)
    names = sorted(name.decode(errors="replace") for name in known)
    if not names:
        return []
    values: Any = client.mget([f"{NAMES}:{name}" for name in names])
    gone = [name for name, value in zip(names, values, strict=True) if value is None]
    if gone:
        client.srem(NAMES, *gone)
    found = ((name, _snapshot(value)) for name, value in zip(names, values, strict=True) if value is not None)
    return [(name, snapshot) for name, snapshot in found if snapshot is not None]


def names() -> list[str]:
    """The names of the processes that have laid down a snapshot within KEPT_FOR seconds. Raises redis.RedisError."""
    client = redis_connection.client()
    known: Any = client.smembers(NAMES)
    listed = sorted(name.decode(errors="replace") for name in known)
    with client.pipeline(transaction=False) as together:
        for name in listed:
            together.exists(f"{NAMES}:{name}")
        return [name for name, there in zip(listed, together.execute(), strict=True) if there]


def _snapshot(written: bytes) -> Snapshot | None:
    """What lies in Redis, or None for what is none of ours: any client of Redis can write there."""
    try:
        return [
            (
                str(family),
                [
                    (str(name), {str(k): str(v) for k, v in labels.items()}, float(value))
                    for name, labels, value in samples
                ],
            )
            for family, samples in from_json(written)
        ]
    except (ValueError, TypeError, AttributeError):
        return None


class Merged:
    """Metrics of several processes. Each family is one that this process knows too; others are left out."""

    def __init__(self, known: Iterable[Metric]) -> None:
        self._families = {family.name: Metric(family.name, family.documentation, family.type) for family in known}

    def add(self, snapshot: Snapshot, **labels: str) -> None:
        """Add one process's samples, each with these labels."""
        for family, samples in snapshot:
            for sample, own, value in samples if family in self._families else ():
                self._families[family].add_sample(sample, {**own, **labels}, value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())
