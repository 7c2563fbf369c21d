"""Doorbells for queues of edits: left in a list for a worker that is awake, or a Celery message that wakes one.

A Celery message costs several milliseconds of CPU, whatever it carries. A worker that a message woke therefore stays
awake for a moment, and takes doorbells from the list. What it takes is on record in Redis, in a list of its own, its
hand, until it is answered: so a death while it works is noticed (docs/decisions/0016). Redis may lose all of it: the
edits are in their rows, and rescue rings for them.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import redis
import redis.asyncio
import structlog
from pydantic_core import from_json, to_json

from shared.broker import queue, redis_connection
from shared.broker.answers import Announcement
from shared.broker.queue import DOORBELL_POSTS, readable
from shared.domain.ids import is_id
from shared.task_names import EDITS_APPLY, QUEUE_OF
from shared.telemetry import tracing

LIST = "redraft:doorbells"
AWAKE = "redraft:awake"
"""Holds the key of the hand of the worker that was the last to say that it is awake."""

HAND = "redraft:hand:"
HANDS = "redraft:hands"
"""The names of all hands, for rescue."""

AWAKE_FOR = 250
"""Milliseconds for which a worker counts as awake after its last sign. One that is busy for longer wakes no others up,
so others are woken; one that died or froze is missed after that time.
"""

LISTED_FOR = 5_000
"""Milliseconds after which the list is forgotten when no doorbell joins it. Rescue has rung by then."""

KEPT_FOR = 600_000
"""Milliseconds that a hand is kept."""

AT_ONCE = 4
"""Doorbells that a worker takes at once."""

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

# The sign is taken back before the last look: a doorbell that comes later wakes a worker.
_SLEEP = """
if redis.call('GET', KEYS[2]) == KEYS[3] then
    redis.call('DEL', KEYS[2])
end
for _ = 1, tonumber(ARGV[1]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[3], 'RIGHT', 'LEFT') then break end
end
if redis.call('PEXPIRE', KEYS[3], ARGV[2]) == 1 then
    redis.call('SADD', KEYS[4], KEYS[3])
end
return redis.call('LRANGE', KEYS[3], 0, -1)"""

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


class Hand:
    """What one worker process has in hand. `process`: a name that no process had before.

    Whatever its calls return is on record until the next one. A broker that is away gives nothing: `[]`. What it moved
    to the hand before its reply was lost stays there, and `fall_asleep` or the next `take_up` returns it.
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self.key = HAND + process
        self._returned: list[bytes] = []
        self.messages_wait = False
        """Whether messages waited for a worker that is asleep, when this one took something the last time."""

    def take_up(self, bell: Bell) -> tuple[list[Bell], list[str]]:
        """A Celery message brought this doorbell: it is in hand now, and the worker is awake.

        Returned: what is in hand, and the other processes that may have something in theirs. More than this doorbell is
        in hand where a connection was lost after the worker had taken another one.
        """
        *_, waiting, found, names = self._run(
            (),
            ("LPUSH", self.key, bell.raw()),
            *self._noted(),
            ("SET", AWAKE, self.key, "PX", AWAKE_FOR),
            ("LLEN", QUEUE_OF[EDITS_APPLY]),
            ("LRANGE", self.key, 0, 2 * AT_ONCE - 1),
            ("SMEMBERS", HANDS),
        ) or [0, [], []]
        self.messages_wait = bool(waiting)
        return self._in_hand(reversed(found)), [one for one in _processes(names) if one != self.process]

    def answer_and_take(self, answers: Sequence[Announcement], seconds: float) -> list[Bell]:
        """Answer what was in hand, and take the next doorbells, waiting `seconds` for one."""
        replies = self._run(
            answers,
            ("BLMOVE", LIST, self.key, "RIGHT", "LEFT", seconds),
            *[("LMOVE", LIST, self.key, "RIGHT", "LEFT")] * (AT_ONCE - 1),
            *self._noted(),
            ("LLEN", QUEUE_OF[EDITS_APPLY]),
            before=[*self._done(), ("SET", AWAKE, self.key, "PX", AWAKE_FOR)],
        )
        self.messages_wait = bool(replies and replies[-1])
        return self._in_hand(replies[:AT_ONCE])

    def fall_asleep(self, answers: Sequence[Announcement] = ()) -> list[Bell]:
        """Answer what was in hand, be awake no longer, and take all that lies in the list after that."""
        asleep = ("EVAL", _SLEEP, 4, LIST, AWAKE, self.key, HANDS, ROOM, KEPT_FOR)
        [found] = self._run(answers, asleep, before=self._done()) or [[]]
        return self._in_hand(reversed(found))

    def drop(self, answers: Sequence[Announcement] = ()) -> None:
        """Answer what was in hand."""
        self._run(answers, ("DEL", self.key))

    def left(self) -> list[Bell]:
        """What is on record."""
        [found] = self._run((), ("LRANGE", self.key, 0, -1)) or [[]]
        return _parsed(reversed(found))

    def idle(self) -> float:
        """Seconds since something was taken."""
        [milliseconds] = self._run((), ("PTTL", self.key)) or [KEPT_FOR]
        return max(0.0, (KEPT_FOR - int(milliseconds)) / 1000)

    def _in_hand(self, found: Iterable[bytes | None]) -> list[Bell]:
        self._returned = [raw for raw in found if raw is not None]
        return _parsed(self._returned)

    def _done(self) -> list[tuple[object, ...]]:
        # One by one: redis-py sends a pipeline again whose connection was lost. To delete the whole hand would then
        # delete what the first one moved there.
        return [("LREM", self.key, 1, raw) for raw in self._returned]

    def _noted(self) -> list[tuple[object, ...]]:
        return [("PEXPIRE", self.key, KEPT_FOR), ("SADD", HANDS, self.key)]

    def _run(
        self, answers: Sequence[Announcement], *commands: tuple[Any, ...], before: Sequence[tuple[Any, ...]] = ()
    ) -> list[Any]:
        """The replies to these commands, behind the answers and what comes before, all in one trip; [] where the broker
        is away.
        """
        try:
            with redis_connection.client().pipeline(transaction=False) as together:
                send: Any = together.execute_command
                for channel, payload in answers:
                    together.publish(channel, payload)
                for command in (*before, *commands):
                    send(*command)
                return list(together.execute()[len(answers) + len(before) :])
        except redis.RedisError as error:
            log.warning("hand_lost", answers=len(answers), error=type(error).__name__)
            if "WRONGTYPE" in str(error):
                self._heal()
            return []

    def _heal(self) -> None:
        """Any client of Redis can write there, and what has another type would fail each task from now on."""
        client = redis_connection.client()
        with suppress(redis.RedisError):
            for name, kind in ((LIST, b"list"), (AWAKE, b"string"), (HANDS, b"set"), (self.key, b"list")):
                if client.type(name) not in (kind, b"none"):
                    client.delete(name)


def _parsed(found: Iterable[Any]) -> list[Bell]:
    return [bell for raw in found if raw is not None and (bell := parse(raw))]


def _processes(names: Iterable[bytes]) -> list[str]:
    return [name.decode(errors="replace").removeprefix(HAND) for name in names]


def hands() -> dict[str, float]:
    """The processes that may have something in hand, each with the seconds since it last took or dropped something.

    Forgets the names of hands that are empty: the next doorbell in one names it again.
    """
    client = redis_connection.client()
    try:
        names: Any = client.smembers(HANDS)
        with client.pipeline(transaction=False) as together:
            for name in names:
                together.pttl(name)
            left = dict(zip(names, together.execute(), strict=True))
        if empty := [name for name, milliseconds in left.items() if milliseconds < 0]:
            client.srem(HANDS, *empty)
    except redis.RedisError as error:
        log.warning("hands_not_read", error=type(error).__name__)
        return {}
    idle = [(KEPT_FOR - milliseconds) / 1000 for milliseconds in left.values()]
    found = zip(_processes(left), idle, left.values(), strict=True)
    return {process: seconds for process, seconds, milliseconds in found if milliseconds >= 0}


def _bell(post_ids: Sequence[str], reply_to: str | None) -> Bell:
    carried = tracing.headers([list(post_ids)]) or {}
    return Bell(list(post_ids), reply_to, carried.get(tracing.PARENTS, []))


def _leaving(bell: Bell, room: int) -> tuple[Any, ...]:
    return (_LEAVE, 2, LIST, AWAKE, bell.raw(), room, LISTED_FOR, AWAKE_FOR)


def posts_of(bells: Iterable[Bell]) -> dict[str, str | None]:
    """The posts of some doorbells, each with the address of the latest doorbell that names it."""
    return {post_id: bell.reply_to for bell in bells for post_id in bell.post_ids}
