"""The worker's way to Redis: what is no message, and an end that Redis does not hear of, cost it no place."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Message

from tests.processes import Server
from worker.runtime.app import app
from worker.runtime.transport import Transport


@pytest.fixture
def connection(own_valkey: Server) -> Iterator[Connection]:
    with Connection(own_valkey.url) as connection:
        yield connection


@pytest.fixture
def broker(own_valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_valkey.url) as client:
        yield client


def test_a_message_is_kept_until_it_is_acknowledged(connection: Connection, broker: redis.Redis) -> None:
    with connection.SimpleQueue("bells") as queue:
        queue.put({"post": "a"})
        message = queue.get(timeout=5)
        assert (broker.hlen("unacked"), broker.zcard("unacked_index"), broker.llen("bells")) == (1, 1, 0)
        message.ack()
        assert (broker.hlen("unacked"), broker.zcard("unacked_index"), broker.llen("bells")) == (0, 0, 0)


def test_a_message_that_is_given_back_lies_in_its_queue_again(connection: Connection, broker: redis.Redis) -> None:
    with connection.SimpleQueue("bells") as queue:
        queue.put({"post": "a"})
        queue.get(timeout=5).requeue()
        assert (broker.hlen("unacked"), broker.zcard("unacked_index"), broker.llen("bells")) == (0, 0, 1)
        assert queue.get(timeout=5).headers["redelivered"]


@pytest.mark.parametrize("end", [Message.ack, Message.reject, Message.requeue])
def test_an_end_that_redis_does_not_answer_leaves_room_for_the_next_message(
    own_valkey: Server, end: Callable[[Message], None]
) -> None:
    options = {"socket_timeout": 0.2}
    with Connection(own_valkey.url, transport_options=options) as connection, connection.SimpleQueue("bells") as queue:
        queue.put({"post": "a"})
        channel: Any = queue.consumer.channel
        qos = channel.qos
        qos.prefetch_count = 1
        message = queue.get(timeout=5)
        assert not qos.can_consume()
        own_valkey.process.freeze()
        with pytest.raises(redis.TimeoutError):
            end(message)
        own_valkey.process.thaw()
        assert qos.can_consume()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_workers_way_to_redis_goes_by_its_scheme_which_is_what_flower_reads(scheme: str) -> None:
    with app.connection_for_read(f"{scheme}://127.0.0.1:1/3") as connection:
        assert connection.get_transport_cls() is Transport
        assert connection.as_uri().startswith(f"{scheme}://")
