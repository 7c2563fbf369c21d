"""Doorbells for queues of edits: left in a list for a worker that is awake, or a Celery message that wakes one.

A Celery message costs several milliseconds of CPU, whatever it carries. A worker that a message woke therefore stays
awake for a moment, and takes doorbells from the list into its hand (shared/broker/hands.py, docs/decisions/0016). Redis
may lose all of it: the edits are in their rows, and rescue rings for them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import redis
import redis.asyncio
import structlog
from pydantic_core import from_json, to_json

from shared.broker import queue, redis_connection
from shared.broker.queue import DOORBELL_POSTS, readable
from shared.domain.ids import is_id
from shared.task_names import EDITS_APPLY
from shared.telemetry import tracing

LIST = "redraft:doorbells"
AWAKE = "redraft:awake"
"""Holds the key of the hand of the worker that was the last to say that it is awake."""

AWAKE_FOR = 250
"""Milliseconds for which a worker counts as awake after its last sign. Then another one is woken: this one is busy with
a slow batch, froze, or died.
"""

LISTED_FOR = 5_000
"""Milliseconds after which the list is forgotten when no doorbell joins it. Rescue has rung by then."""

ROOM = 8
"""So many doorbells may be in the list and in the hand of the worker that is awake. The next one wakes another worker.
"""

Outcome = Literal["listed", "sent", "failed"]
"""What became of a doorbell: a worker was awake; a message woke one; the broker would not take it."""

# A sign that does not end in time is none of ours. It would keep the doorbells of a quiet hour from waking a worker.
_LEAVE = """
local hand, left = redis.call('GET', KEYS[2]), redis.call('PTTL', KEYS[2])
if not hand or left < 0 or left > tonumber(ARGV[4]) then
    return 0
end
if redis.call('LLEN', KEYS[1]) + redis.call('LLEN', hand) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1"""

log = structlog.get_logger(__name__)


class Bell(NamedTuple):
    """One doorbell: posts with something new, at most 500, and the address of the answer (`answers.address`).

    `traces`: the traces of the requests that it stands for (shared/telemetry/tracing.py).
    """

    post_ids: list[str]
    reply_to: str | None = None
    traces: list[str] = []  # noqa: RUF012  -- never changed

    def raw(self) -> bytes:
        """As it lies in Redis."""
        return to_json(self)


def parse(raw: bytes) -> Bell | None:
    """A doorbell from Redis, or None for what is none of ours. Any client of Redis can write there."""
    try:
        post_ids, reply_to, traces = from_json(raw)
    except (ValueError, TypeError):
        return None
    if not isinstance(post_ids, list) or not isinstance(traces, list):
        return None
    named = [one for one in post_ids[:DOORBELL_POSTS] if is_id(one)]
    return Bell(named, reply_to if is_id(reply_to) else None, traces) if named else None


def ring(post_ids: Sequence[str], reply_to: str | None = None) -> bool:
    """Ring for posts that have something new. False where the broker would not take all of it.

    Never raises for a broker that is gone, frozen or full: rescue rings again.
    """
    rung = True
    for start in range(0, len(post_ids), DOORBELL_POSTS):
        bell = _bell(post_ids[start : start + DOORBELL_POSTS], reply_to)
        try:
            left = redis_connection.client().eval(*_leaving(bell, ROOM))
        except redis.ResponseError as error:
            left = _not_left(error)
        except redis.RedisError as error:
            rung = queue.not_sent(EDITS_APPLY, readable(bell.post_ids), error)
            continue
        rung &= bool(left) or queue.send(EDITS_APPLY, [bell.post_ids, reply_to], shown=readable(bell.post_ids))
    return rung


def _not_left(error: redis.ResponseError) -> bool:
    """The list cannot be used: strange content under our names, or no scripts for this user. A message needs neither.

    Returned: False.
    """
    log.warning("doorbell_not_left", error=str(error)[:200])
    return False


def ring_later(bell: Bell, seconds: float) -> bool:
    """Ring once more for work that was put off: with a message, which can wait. 0 seconds: at once."""
    shown, countdown = readable(bell.post_ids), seconds or None
    return queue.send(EDITS_APPLY, [bell.post_ids, bell.reply_to], shown=shown, countdown=countdown)


async def ring_on_loop(
    broker: redis.asyncio.Redis, post_ids: Sequence[str], reply_to: str | None, room: int = ROOM
) -> Outcome:
    """The same on an event loop, with a connection of `redis_connection.client_on_loop`. At most 500 posts.

    `room`: with so many doorbells before this one, another worker is woken.
    """
    bell, shown = _bell(post_ids, reply_to), readable(post_ids)
    asked: Any = broker.eval(*_leaving(bell, room))
    try:
        try:
            left = await asked
        except redis.ResponseError as error:
            left = _not_left(error)
        if left:
            return "listed"
        await queue.send_on_loop(broker, EDITS_APPLY, [bell.post_ids, reply_to], shown, bell.traces)
    except (redis.RedisError, OSError) as error:
        queue.not_sent(EDITS_APPLY, shown, error)
        return "failed"
    return "sent"


def _bell(post_ids: Sequence[str], reply_to: str | None) -> Bell:
    carried = tracing.headers([list(post_ids)]) or {}
    return Bell(list(post_ids), reply_to, carried.get(tracing.PARENTS, []))


def _leaving(bell: Bell, room: int) -> tuple[Any, ...]:
    return (_LEAVE, 2, LIST, AWAKE, bell.raw(), room, LISTED_FOR, AWAKE_FOR)


def posts_of(bells: Iterable[Bell]) -> dict[str, str | None]:
    """The posts of some doorbells, each with the address of the latest doorbell that names it."""
    return {post_id: bell.reply_to for bell in bells for post_id in bell.post_ids}
