"""What Redis says, for the operators' pages. It is asked once for all pages of a moment, and never waited for long."""

from typing import Final

import structlog

from api.http.sources import Source
from shared.broker import redis_health
from shared.domain.waits import Broker

WITHIN: Final = 1.0
"""Seconds that a page waits for Redis. A frozen one is asked by one thread, however many pages are open."""
KEPT: Final = 1.0
"""Seconds for which an answer is shown."""
SILENT: Final = Broker(away="no answer in time")

log = structlog.get_logger(__name__)


def _ask() -> Broker:
    try:
        return redis_health.read()
    except Exception as error:  # noqa: BLE001  -- a page without this part is better than none
        log.warning("ops_probe_failed", error=type(error).__name__)
        return Broker()


_redis = Source({"says": _ask}, KEPT, WITHIN)


async def of_redis() -> Broker:
    """What Redis said a moment ago, or SILENT where it has not answered in time. Never raises."""
    return (await _redis.read())["says"] or SILENT
