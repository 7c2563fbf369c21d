"""What Redis says, for the operators' pages. It is asked once for all pages of a moment, and never waited for long."""

import asyncio
import time
from typing import Final

import structlog
from starlette.requests import Request

from shared.broker import redis_health
from shared.domain.waits import Broker

WITHIN: Final = 1.0
"""Seconds that a page waits for Redis. A frozen one is asked by one thread, however many pages are open."""
KEPT: Final = 1.0
"""Seconds for which an answer is shown."""
SILENT: Final = Broker(away="no answer in time")

log = structlog.get_logger(__name__)


class RedisAnswers:
    """The question that is under way, or its answer. Lives on one event loop."""

    def __init__(self) -> None:
        self._asked: asyncio.Task[Broker] | None = None
        self._at = 0.0

    async def read(self) -> Broker:
        """What Redis said a moment ago, or SILENT where it has not answered in time. Never raises."""
        asked = self._asked
        if asked is None or (asked.done() and time.monotonic() - self._at > KEPT):
            asked = self._asked = asyncio.create_task(self._ask())
        await asyncio.wait({asked}, timeout=WITHIN)
        return asked.result() if asked.done() else SILENT

    async def _ask(self) -> Broker:
        try:
            return await asyncio.to_thread(redis_health.read)
        except Exception as error:  # noqa: BLE001  -- a page without this part is better than none
            log.warning("ops_probe_failed", error=type(error).__name__)
            return Broker()
        finally:
            self._at = time.monotonic()


async def of_redis(request: Request) -> Broker:
    """What Redis says to this API process. Never raises; takes WITHIN seconds at most."""
    state = request.app.state
    if not hasattr(state, "ops_redis"):
        state.ops_redis = RedisAnswers()
    known: RedisAnswers = state.ops_redis
    return await known.read()
