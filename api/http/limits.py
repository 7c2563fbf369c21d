"""Rate limits: each key's own, counted in Redis by all processes together.

A window is a minute of the wall clock, so the clock says when it ends, and one increment says the count. That is one
round trip for a request, or for all of a key's requests that come while one is under way. Keys without a limit cost
nothing.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from redis.asyncio import BlockingConnectionPool, Redis

from api.http.coalescer import Coalescer
from shared.store.keys import Key

WINDOW = 60
PATIENCE = 0.05
WITHOUT_REDIS_FOR = 5.0
CONNECTIONS = 16
REMEMBERED_AT_MOST = 10_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Usage:
    """A key's limit after one request. `allowed`: the request may pass. `reset`: seconds until the window ends."""

    allowed: bool
    limit: int
    remaining: int
    reset: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of draft-ietf-httpapi-ratelimit-headers."""
        return [
            (b"ratelimit", b'"default";r=%d;t=%d' % (self.remaining, self.reset)),
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (self.limit, WINDOW)),
        ]


@dataclass(slots=True, eq=False)
class Tally:
    """One key's requests in one window, as far as this process knows how many all processes counted.

    `owed` requests were counted by this process alone while Redis was away. They are added to Redis's count later.
    """

    window: int
    name: str
    count: int = 0
    owed: int = 0
    rounds: Coalescer[object, int] = field(init=False)


class RateLimits:
    """The limits of this process's requests. Lives on the event loop. Never waits for Redis longer than PATIENCE."""

    def __init__(self, redis_url: str, wall: Callable[[], float] = time.time) -> None:
        """`wall`: the wall clock, in seconds since the epoch."""
        self._loop = asyncio.get_running_loop()
        self._wall = wall
        self._pool = BlockingConnectionPool.from_url(
            redis_url, max_connections=CONNECTIONS, timeout=PATIENCE, socket_connect_timeout=1, socket_timeout=1
        )
        self._redis = Redis(connection_pool=self._pool)
        self._tallies: dict[str, Tally] = {}
        self._without_redis_until = 0.0

    async def hit(self, key: Key, limit: int) -> Usage:
        """Count one request of a key that may make `limit` a minute."""
        now = self._wall()
        window = int(now // WINDOW)
        tally = self._tallies.get(key.id)
        if tally is None or tally.window != window:
            if len(self._tallies) > REMEMBERED_AT_MOST:
                self._tallies.clear()
            tally = self._tallies[key.id] = Tally(window, f"redraft:limit:{key.id}:{window}")
            tally.rounds = Coalescer(partial(self._count, tally))
        reset = max(1, math.ceil((window + 1) * WINDOW - now))
        # A spent limit stays spent until the window ends, so a flood of refused requests does not reach Redis.
        # Requests that come together share a trip.
        place = limit + 1 if tally.count > limit else await tally.rounds.ask(object())
        return Usage(place <= limit, limit, max(0, limit - place), reset)

    async def close(self) -> None:
        """Let the connections go."""
        await self._pool.disconnect()

    async def _count(self, tally: Tally, requests: list[object]) -> dict[object, int]:
        """The places of requests in their window's count, from 1 on."""
        last = await self._increment(tally, len(requests))
        return {request: place for place, request in enumerate(requests, last - len(requests) + 1)}

    async def _increment(self, tally: Tally, amount: int) -> int:
        """The key's count with these requests. For 5 s after a failure of Redis, this process counts alone."""
        if self._loop.time() >= self._without_redis_until:
            try:
                async with asyncio.timeout(PATIENCE):
                    count = await self._add(tally.name, amount + tally.owed)
            except Exception as error:  # noqa: BLE001  -- whatever fails in Redis, the request goes on
                # Redis may have counted these requests: they are not owed, so that no key is charged twice.
                self._without_redis_until = self._loop.time() + WITHOUT_REDIS_FOR
                log.warning("limiter_alone", seconds=WITHOUT_REDIS_FOR, error=type(error).__name__)
                tally.count += amount
                return tally.count
            tally.owed = 0
            tally.count = max(tally.count, count)
            return count
        tally.owed += amount
        tally.count += amount
        return tally.count

    async def _add(self, name: str, amount: int) -> int:
        """Redis's count with these requests, in one trip. Its key lives for two windows: clocks may differ."""
        async with self._redis.pipeline(transaction=False) as together:
            together.incrby(name, amount)
            together.expire(name, 2 * WINDOW)
            count, _ = await together.execute()
        return int(count)
