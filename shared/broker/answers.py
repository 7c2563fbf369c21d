"""Announcing the results of edits over Redis pub/sub, and hearing them (docs/architecture.md).

Each API process has a channel of its own. A doorbell carries its address, and the worker that answers it publishes
there, once a batch. Pub/sub stores nothing: a result that was not heard is read from the database.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import structlog
from pydantic_core import from_json, to_json

from shared.broker.redis_connection import client
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult

# After ten seconds of silence the channel is pinged. Without an answer it counts as lost.
SILENT_AT_MOST = 10.0
ANSWERS_WITHIN = 3.0

log = structlog.get_logger(__name__)


def address(channel: str, bell: int) -> str:
    """Where the answer to doorbell number `bell` of the process listening on `channel` goes."""
    return f"{channel}#{bell}"


def channel_of(address: str) -> str:
    """The channel of an address."""
    return address.rpartition("#")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: to which doorbell, counted from one, and the results of its batch. `more`: more answers follow."""

    bell: int
    results: dict[str, EditResult]
    more: bool = False


Announcement = tuple[str, bytes]
"""A channel, and what is published on it."""


def announcement(reply_to: str | None, results: Sequence[EditResult], *, more: bool = False) -> Announcement | None:
    """The answer to a doorbell, with the results of its batch; None where no process asked for one.

    `more`: another answer to the same doorbell follows, and these results need not wait for it.
    """
    if not reply_to or "#" not in reply_to:
        return None
    channel, _, bell = reply_to.rpartition("#")
    rows = [
        [end.id, end.status, end.revision, end.result, end.error_code, end.error_message, end.error_details]
        for end in results
    ]
    return channel, to_json([f"-{bell}" if more else bell, rows])


def announce(announcements: Iterable[Announcement | None]) -> bool:
    """Publish answers. False if that failed: then the API reads the database."""
    try:
        with client().pipeline(transaction=False) as together:
            for channel, payload in filter(None, announcements):
                together.publish(channel, payload)
            together.execute()
    except redis.RedisError as error:
        log.warning("announce_failed", error=type(error).__name__)
        return False
    return True


def parse(data: bytes) -> Answer | None:
    """An announcement, or None for a message that no worker of ours wrote."""
    try:
        bell, rows = from_json(data)
        results = {
            row[0]: EditResult(
                row[0], EditStatus(row[1]), row[2], result=row[3], error_code=row[4], error_message=row[5],
                error_details=row[6],
            )
            for row in rows
        }  # fmt: skip
        return Answer(abs(int(bell)), results, more=int(bell) < 0)
    except (ValueError, TypeError, LookupError):
        return None


class Listener:
    """Hears this process's channel, on its event loop, and passes each answer on. It reconnects by itself."""

    def __init__(self, broker: redis.asyncio.Redis, channel: str, hear: Callable[[Answer], object]) -> None:
        self._broker = broker
        self.channel = channel
        self._hear = hear
        self._hearing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._hearing = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Hear no more."""
        # More than once: below Python 3.12 asyncio.wait_for, by which redis-py connects, forgets a cancellation that
        # comes just when it is through.
        while self._hearing is not None and not self._hearing.done():
            self._hearing.cancel()
            await asyncio.wait([self._hearing], timeout=0.1)

    async def _run(self) -> None:
        while True:
            try:
                async with self._broker.pubsub() as pubsub:
                    await pubsub.subscribe(self.channel)
                    await self._listen(pubsub)
            except (redis.RedisError, OSError):
                pass
            except Exception:
                # Without this the task would end silently, and every edit would have to be looked up in the database.
                log.exception("hearing_failed")
            # Waiters read the database meanwhile; half a second is often enough for a restart.
            await asyncio.sleep(0.5)

    async def _listen(self, pubsub: Any) -> None:
        now = asyncio.get_running_loop().time
        heard = now()
        while True:
            message = await pubsub.get_message(timeout=1.0)
            if message is not None:
                heard = now()
                answer = parse(message["data"]) if message.get("type") == "message" else None
                if answer is not None:
                    self._hear(answer)
            elif now() > heard + SILENT_AT_MOST + ANSWERS_WITHIN:
                # Half-open: only the answer to a ping tells a silent channel from a dead connection.
                raise redis.ConnectionError("the channel no longer answers")
            elif now() > heard + SILENT_AT_MOST:
                await pubsub.ping()
