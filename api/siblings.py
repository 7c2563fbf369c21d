"""Several API processes on one port (`redraft api --processes`): a scrape reaches any one, and shows them all.

Each writes its metrics into Redis, as worker processes do (docs/decisions/0007). A page shows all of them from there,
its own too if they are there. A counter that came now from memory and now from Redis would seem to fall, as if its
process had restarted.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from prometheus_client.metrics_core import Metric

from shared.broker import metric_snapshots
from shared.broker.metric_snapshots import Merged, Snapshot, snapshot_of
from shared.settings import settings


def _own_name() -> str:
    """`api@host:8000/2`."""
    return f"api@{socket.gethostname()}:{settings().api_place}"


def process_name() -> str:
    """Who wrote a line of the log: `api`, or `api-2` of several."""
    number = settings().api_place.rpartition("/")[2]
    return f"api-{number}" if number else "api"


def snapshots() -> Mapping[str, Snapshot]:
    """The metrics of all processes on this port, by their places; {} for one alone. Raises redis.RedisError."""
    if not settings().api_place:
        return {}
    port = _own_name().rpartition("/")[0] + "/"
    return {name.removeprefix(port): found for name, found in metric_snapshots.read() if name.startswith(port)}


def merged(own: Sequence[Metric], found: Mapping[str, Snapshot] | None) -> Iterator[Metric]:
    """The families of all processes, each sample with its `place`.

    `own`: this process's, which say what each family is. They are shown themselves where Redis has none of them.
    """
    together, place = Merged(own), settings().api_place.rpartition("/")[2]
    for one, snapshot in ({place: snapshot_of(own)} | dict(found or {})).items():
        together.add(snapshot, place=one)
    yield from together


@asynccontextmanager
async def reporting(collect: Callable[[], list[Metric]]) -> AsyncIterator[None]:
    """Write this process's metrics into Redis every two seconds and at the end, if it has siblings."""
    if not settings().api_place:
        yield
        return

    async def write() -> None:
        # Collected on the event loop, where these figures change.
        await asyncio.to_thread(metric_snapshots.write, _own_name(), collect())

    async def write_on() -> None:
        while True:
            await asyncio.sleep(metric_snapshots.PERIOD)
            await write()

    await write()
    writing = asyncio.create_task(write_on())
    yield
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    await write()
