"""A bad way from processes of ours to one of their servers: who goes by it, and how long what it does may be felt."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.proxy import Proxy
from tests.faults.scene import Scene

SETTING = {"postgresql": "REDRAFT_DATABASE_URL", "redis": "REDRAFT_REDIS_URL"}
# From the healing until all is as before: fault 5 of docs/faults.md allows a stopped Redis as much.
RECOVERED = 30.0
# Longer than every time-out and every limit of a task.
LONG = 45.0


@contextmanager
def bad_way(scene: Scene, where: str) -> Iterator[Proxy]:
    """A proxy before one of the scene's servers, `postgresql` or `redis`; sound until it is told otherwise."""
    with Proxy(scene.environment[SETTING[where]]) as proxy:
        yield proxy


@contextmanager
def through(scene: Scene, proxy: Proxy, where: str) -> Iterator[None]:
    """What is started within the block comes to that server by the proxy, everybody else directly."""
    sound = scene.environment
    scene.environment = sound | {SETTING[where]: proxy.url}
    try:
        yield
    finally:
        scene.environment = sound
