"""kombu's way to Redis in fewer steps: receiving and acknowledging are half of what a message costs there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


class QoS(redis.QoS):
    """What keeps the messages that are not acknowledged yet: two commands for each, one behind the other in one trip.

    kombu has Redis run them as a transaction. A Redis that dies between the two forgets a message, or keeps one that
    is done: both happen to doorbells anyway (SPEC 3, FAULTS 10).
    """

    channel: Any

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """The pipeline given, or one of our own."""
        if pipe:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as own:
            yield own.pipeline(transaction=False)


class Channel(redis.Channel):
    """A channel with one client for what it sends, where kombu makes one for each command."""

    QoS = QoS
    _own: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  -- kombu's signature
        if asynchronous:
            # These hold on to a connection of their own, to wait for messages on it.
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # the stubs leave it out
        if self._own is None or self._own.connection_pool is not self.pool:
            self._own = super()._create_client()  # type: ignore[misc]
        return self._own


class Transport(redis.Transport):
    """kombu's, with that channel."""

    Channel = Channel


def serve_redis() -> None:
    """Be what a Redis URL means in this process. Named in Celery's settings it would be: Flower goes by the scheme."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
