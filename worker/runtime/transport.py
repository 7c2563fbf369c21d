"""kombu's way to Redis in fewer steps: receiving and acknowledging are half of what a message costs there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.transport.virtual import Message
from redis.exceptions import DataError

log = structlog.get_logger(__name__)

# All that reading a message can end in: kombu makes values of JSON by whatever type the message names.
UNREADABLE = (ArithmeticError, AttributeError, DataError, LookupError, RecursionError, TypeError, ValueError)


class QoS(redis.QoS):
    """What keeps the messages that are not acknowledged yet: two commands for each, one behind the other in one trip.

    kombu has Redis run them as a transaction. A Redis that dies between the two forgets a message that it hands out:
    that happens to doorbells anyway (SPEC 3, FAULTS 10).
    """

    channel: Any
    unacked_key: str
    unacked_index_key: str
    _quick_ack: Any

    # A message that has ended holds up no other, though Redis could not be told: Celery tells it only once, and a
    # worker whose places are all held like that would wait for ever. Such a message comes again, as a no-op.

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
        """kombu's, the other way round: a line left in the index is swept, a message left without one never is."""
        with self.pipe_or_acquire(pipe) as commands:
            return commands.hdel(self.unacked_key, delivery_tag).zrem(self.unacked_index_key, delivery_tag)

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """The pipeline given, or one of our own."""
        if pipe:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as own:
            yield own.pipeline(transaction=False)


class Received(Message):
    """One message. Without a body it is none: Celery measures what it refuses, and would trip over that."""

    def __init__(self, payload: Any, channel: Any = None, **given: Any) -> None:
        super().__init__(payload, channel=channel, **given)
        if not isinstance(self.body, bytes | str):
            raise TypeError("no body")


class Channel(redis.Channel):
    """A channel with one client for what it sends, where kombu makes one for each command."""

    QoS = QoS
    Message = Received
    _own: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  -- kombu's signature
        if asynchronous:
            # These hold on to a connection of their own, to wait for messages on it.
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # the stubs leave it out
        if self._own is None or self._own.connection_pool is not self.pool:
            self._own = super()._create_client()  # type: ignore[misc]
        return self._own

    def _brpop_read(self, **options: Any) -> Any:
        return _or_dropped(super()._brpop_read, **options)  # type: ignore[misc]

    def _receive_one(self, client: Any) -> Any:
        return _or_dropped(super()._receive_one, client)  # type: ignore[misc]


def _or_dropped(read: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What is not even a message is dropped: it would end this worker, or have it connect anew."""
    try:
        return read(*given, **options)
    except UNREADABLE as error:
        # Nothing of what it holds: that may be a caption.
        log.warning("message_dropped", error=type(error).__name__)
        return True


class Transport(redis.Transport):
    """kombu's, with that channel."""

    Channel = Channel


def serve_redis() -> None:
    """Be what a Redis URL means in this process. Named in Celery's settings it would be: Flower goes by the scheme."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
