"""kombu's transport for Redis, which survives what is no message: every client of Redis can put anything on a queue."""

from collections.abc import Callable
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.transport.virtual import Message
from redis.exceptions import DataError

log = structlog.get_logger(__name__)

# What reading a message can raise: kombu builds values of any type that the JSON names.
UNREADABLE = (ArithmeticError, AttributeError, DataError, LookupError, RecursionError, TypeError, ValueError)


class QoS(redis.QoS):
    """Gives a place back although Redis did not hear of it.

    Celery acknowledges only once, and a worker whose places were all kept that way would wait for ever. Redis hands
    such a message out again, as a no-op.
    """

    _quick_ack: Any

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  -- kombu's signature
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            self._quick_ack(delivery_tag)


class Received(Message):
    """One message. Without a body it is refused here: Celery takes the length of what it refuses, and would raise."""

    def __init__(self, payload: Any, channel: Any = None, **given: Any) -> None:
        super().__init__(payload, channel=channel, **given)
        if not isinstance(self.body, bytes | str):
            raise TypeError("no body")


class Channel(redis.Channel):
    """A channel that goes on after what is no message."""

    QoS = QoS
    Message = Received

    def _brpop_read(self, **options: Any) -> Any:
        return _or_dropped(super()._brpop_read, **options)  # type: ignore[misc]

    def _receive_one(self, client: Any) -> Any:
        return _or_dropped(super()._receive_one, client)  # type: ignore[misc]


def _or_dropped(read: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Drop what is no message: it would stop this worker, or make it connect again."""
    try:
        return read(*given, **options)
    except UNREADABLE as error:
        # Nothing of its content: that may be a caption.
        log.warning("message_dropped", error=type(error).__name__)
        return True


class Transport(redis.Transport):
    """kombu's, with that channel."""

    Channel = Channel


def serve_redis() -> None:
    """Make this the transport of Redis URLs in this process, in the place of kombu's.

    Not by a name in the broker URL: Flower decides by the URL's scheme, and would not know that name.
    """
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
