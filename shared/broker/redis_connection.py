"""The connections to Redis, each wait on them bounded."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.settings import settings


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """This process's connection to Redis; every wait on it is bounded."""
    return redis.Redis.from_url(settings().redis_url, **_bounded(Retry), health_check_interval=10)


def with_tls_checked(url: str) -> str:
    """The URL for Celery. kombu (5.7) takes a `rediss://` without any parameter `ssl_…` for a server without TLS."""
    parts = urlsplit(url)
    if parts.scheme != "rediss" or any(name.startswith("ssl_") for name in parse_qs(parts.query)):
        return url
    return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"


def client_on_loop() -> redis.asyncio.Redis:
    """A connection for the running event loop alone, bounded alike. The caller closes it.

    For a request that waits, ringing and hearing in threads would cost four more wake-ups: a tenth of its time.
    """
    return redis.asyncio.Redis.from_url(settings().redis_url, **_bounded(redis.asyncio.retry.Retry))


def _bounded(retry: Callable[..., object]) -> dict[str, Any]:
    timeout = settings().redis_timeout
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # A connection that Redis closed while it lay idle is replaced at once; a Redis that hangs is not asked again.
        "retry": retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }


def reachable() -> bool:
    """Whether Redis answers, within its time-out."""
    try:
        return bool(client().ping())
    except redis.RedisError:
        return False
