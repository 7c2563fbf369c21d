"""A bad way from processes of ours to one of their servers: who goes by it, and how long what it does may be felt."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.harness import Harness
from tests.faults.proxy import Proxy

SETTING = {"postgresql": "REDRAFT_DATABASE_URL", "redis": "REDRAFT_REDIS_URL"}
# From the healing until all is as before: docs/faults.md grants a stopped Redis as much.
RECOVERED = 30.0
# Longer than every time-out and every limit of a task.
LONG = 45.0


@contextmanager
def bad_way(harness: Harness, where: str) -> Iterator[Proxy]:
    """A proxy before one of the harness's servers, `postgresql` or `redis`; sound until it is told otherwise."""
    with Proxy(harness.environment[SETTING[where]]) as proxy:
        yield proxy


@contextmanager
def through(harness: Harness, proxy: Proxy, where: str) -> Iterator[None]:
    """What is started within the block comes to that server by the proxy, everybody else directly."""
    sound = harness.environment
    harness.environment = sound | {SETTING[where]: proxy.url}
    try:
        yield
    finally:
        harness.environment = sound
