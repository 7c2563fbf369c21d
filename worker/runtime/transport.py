"""kombu's transport for Redis in fewer commands: receiving and acknowledging are half of what a message costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.transport.virtual import Message
from redis.exceptions import DataError

log = structlog.get_logger(__name__)

# What reading a message can raise: kombu builds values of any type that the JSON names.
UNREADABLE = (ArithmeticError, AttributeError, DataError, LookupError, RecursionError, TypeError, ValueError)


class QoS(redis.QoS):
    """Keeps the messages that are not acknowledged yet: two commands for each message, sent in one trip.

    kombu 5.7 has Redis run them as a transaction. Without it, a Redis that dies between the two loses a message that it
    hands out. A doorbell may be lost in any case (docs/faults.md, row 10).
    """

    channel: Any
    unacked_key: str
    unacked_index_key: str
    _quick_ack: Any

    # A finished message gives its place back although Redis did not hear of it. Celery acknowledges only once, and a
    # worker whose places were all kept that way would wait for ever. Redis hands such a message out again, as a no-op.

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

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        """kombu's, in the other order: kombu sweeps an index entry without a message, and never the reverse."""
        with self.pipe_or_acquire(pipe) as commands:
            return commands.hdel(self.unacked_key, delivery_tag).zrem(self.unacked_index_key, delivery_tag)

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """The pipeline given, or a new one that is no transaction."""
        if pipe:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as connection:
            yield connection.pipeline(transaction=False)


class Received(Message):
    """One message. Without a body it is refused here: Celery takes the length of what it refuses, and would raise."""

    def __init__(self, payload: Any, channel: Any = None, **given: Any) -> None:
        super().__init__(payload, channel=channel, **given)
        if not isinstance(self.body, bytes | str):
            raise TypeError("no body")


class Channel(redis.Channel):
    """A channel with one client for what it sends. kombu makes one client for each command."""

    QoS = QoS
    Message = Received
    _sending_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  -- kombu's signature
        if asynchronous:
            # These clients keep a connection of their own, on which they wait for messages.
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # the stubs leave it out
        if self._sending_client is None or self._sending_client.connection_pool is not self.pool:
            self._sending_client = super()._create_client()  # type: ignore[misc]
        return self._sending_client

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
