"""Announcing the ends of edits over Redis pub/sub, and hearing them (SPEC 7, "Answers").

Each API process has a channel of its own; a doorbell carries its address, and the worker that answers it publishes
once, there. Pub/sub forgets: what nobody heard is read from the database, so nothing here needs to be reliable.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis
import structlog
from pydantic_core import from_json, to_json
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.lifecycle import EditStatus
from shared.settings import settings
from shared.store.edits import End

# A silent channel is asked for a sign of life, once a second after ten: so many unanswered, and it is deaf.
UNANSWERED_AT_MOST = 2

log = structlog.get_logger(__name__)


def address(channel: str, bell: int) -> str:
    """Where the answer to doorbell number `bell` of the process listening on `channel` goes."""
    return f"{channel}#{bell}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: to which doorbell, and the ends that its batch made."""

    bell: int
    ends: dict[str, End]


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """This process's connection for announcing and hearing; every wait on it is bounded."""
    config = settings()
    return redis.Redis.from_url(
        config.redis_url,
        socket_timeout=config.redis_timeout,
        socket_connect_timeout=config.redis_timeout,
        health_check_interval=10,
        # A connection that Redis closed while it lay idle is replaced at once; a Redis that hangs is not asked again.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def reachable() -> bool:
    """Whether Redis answers, within its time-out."""
    try:
        return bool(client().ping())
    except redis.RedisError:
        return False


def announce(reply_to: str | None, ends: Sequence[End]) -> bool:
    """Answer a doorbell with the ends of its batch. False if nobody could be told; they will look for themselves."""
    if not reply_to or "#" not in reply_to:
        return False
    channel, _, bell = reply_to.rpartition("#")
    told = [
        [end.id, end.status, end.revision, end.result, end.error_code, end.error_message, end.error_details]
        for end in ends
    ]
    try:
        client().publish(channel, to_json([bell, told]))
    except redis.RedisError as error:
        log.warning("announce_failed", error=type(error).__name__)
        return False
    return True


def parse(data: bytes) -> Answer | None:
    """An announcement as it was meant, or None for one that nobody of ours wrote."""
    try:
        bell, told = from_json(data)
        ends = {
            row[0]: End(
                row[0], EditStatus(row[1]), row[2], result=row[3], error_code=row[4], error_message=row[5],
                error_details=row[6],
            )
            for row in told
        }  # fmt: skip
        return Answer(int(bell), ends)
    except (ValueError, TypeError, LookupError):
        return None


class Listener:
    """Hears this process's channel in a thread of its own and hands each answer on. Survives a Redis that goes away.

    `hear` is called in that thread.
    """

    def __init__(self, channel: str, hear: Callable[[Answer], object]) -> None:
        self.channel = channel
        self._hear = hear
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a second."""
        self._stopped.set()
        self._thread.join(timeout=3)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with client().pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
                    pubsub.subscribe(self.channel)
                    self._listen(pubsub)
            except redis.RedisError:
                # Waiters read the database meanwhile; half a second is often enough for a restart.
                self._stopped.wait(0.5)

    def _listen(self, pubsub: Any) -> None:
        while not self._stopped.is_set():
            message = pubsub.get_message(timeout=1.0)
            if message is not None and message.get("type") == "message":
                answer = parse(message["data"])
                if answer is not None:
                    self._hear(answer)
            elif pubsub.health_check_response_counter > UNANSWERED_AT_MOST:
                # Half-open: redis-py counts the answers that are missing, and draws no conclusion.
                raise redis.ConnectionError("the channel has gone deaf")
