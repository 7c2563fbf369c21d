"""Ports for the servers of tests, which nobody else is given before the server listens.

A port is chosen first, and its server listens a second or two later. In between the kernel gives a port of its own
range to whoever asks for any. Ours lie below that range. Each process of a run counts through a part of its own: no two
of them choose the same one. A server that was killed finds its port free again, too.
"""

import os
import random
from collections.abc import Iterator
from functools import cache
from itertools import chain, cycle
from pathlib import Path

from shared.local import datadir

FIRST = 12_000
"""Chromium refuses to speak to some ports, the last of which is 10080."""
LAST = 32_767
"""Where Linux begins to give ports out by itself, unless it is told otherwise; macOS begins later."""
FEWEST = 500


def _last() -> int:
    try:
        given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return LAST
    return min(LAST, given_out - 1)


def part(last: int, number: int, count: int, start: float) -> list[int]:
    """The ports of one of `count` processes, from another place in each run, since two runs may share a machine."""
    size = (last - FIRST) // count
    ours = range(FIRST + number * size, FIRST + (number + 1) * size)
    if len(ours) < FEWEST:
        return []
    turn = int(len(ours) * start)
    return list(chain(ours[turn:], ours[:turn]))


@cache
def _ours() -> Iterator[int]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # Not from a seed: two runs would choose the same.
    return cycle(part(_last(), number, count, random.SystemRandom().random()))


def free_port() -> int:
    """A free TCP port on loopback for a server that is about to start. Any free one where the kernel leaves us none."""
    for tried, port in enumerate(_ours()):
        if datadir.port_is_free(port):
            return port
        if tried > LAST:
            break
    return datadir.free_port()
