"""What each worker has in hand: the doorbells that it works on, on record in Redis until they are answered.

So a death while it works is noticed, and counted as an attempt of the edits behind its doorbells
(worker/awake.py, docs/decisions/0016).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import redis
import structlog

from shared.broker import doorbells, redis_connection
from shared.broker.answers import Announcement
from shared.broker.doorbells import AWAKE, LIST, ROOM, Bell, parse
from shared.task_names import EDITS_APPLY, QUEUE_OF

HAND = "redraft:hand:"
HANDS = "redraft:hands"
"""The names of all hands, for rescue."""

KEPT_FOR = 600_000
"""Milliseconds that a hand is kept."""

AT_ONCE = 4
"""Doorbells that a worker takes at once."""

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
            ("SET", AWAKE, self.key, "PX", doorbells.AWAKE_FOR),
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
            before=[*self._done(), ("SET", AWAKE, self.key, "PX", doorbells.AWAKE_FOR)],
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


def by_idle_time() -> dict[str, float]:
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
