"""What strikes while the load runs: one fault after the other, of a random kind, some of them lasting into the next."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg
import redis

from tests.benchmarks import parts
from tests.reference_services.client import Played, Reference
from tests.soak.posts import Posts

GAP = (1.0, 7.0)
LATE = 7.0
"""Seconds; more than the stack's time-out for services, tests/soak/__main__.py."""
QUEUES = ("edits", "publish", "render", "bulk", "ops")


@dataclass
class Strikes:
    """Everything random in it comes from `luck`. `root`: the process of `redraft up`, which starts again what dies."""

    root: int
    redis_url: str
    dsn: str
    posts: Posts
    reference: Reference
    rng: random.Random
    over: asyncio.Event
    opponent: Played | None = None
    began: float = field(default_factory=time.monotonic)
    diary: list[tuple[float, str]] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    _lasting: set[asyncio.Task[None]] = field(default_factory=set)
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Strike until it is over; then undo what still lasts."""
        kinds: dict[Callable[[], Coroutine[Any, Any, None]], int] = {
            self._kill_worker: 5,
            self._kill_pool_child: 6,
            self._freeze_worker: 2,
            self._kill_api: 2,
            self._freeze_redis: 3,
            self._flush_redis: 2,
            self._kill_redis: 1,
            self._fill_redis: 1,
            self._restart_postgres: 2,
            self._hold_posts: 4,
            self._mislead_publisher: 2,
        }
        while not self.over.is_set():
            strike = self.rng.choices(list(kinds), list(kinds.values()))[0]
            task = asyncio.create_task(strike())
            self._lasting.add(task)
            task.add_done_callback(self._lasting.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.rng.uniform(*GAP))
        await asyncio.gather(*self._lasting)

    def _note(self, kind: str, words: str) -> None:
        self.struck[kind] += 1
        self.diary.append((time.monotonic() - self.began, words))
        print(f"{self.diary[-1][0]:7.1f} s  {words}", flush=True)

    async def _last(self, least: float, most: float) -> None:
        """How long a fault lasts; it ends early with the load."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), self.rng.uniform(least, most))

    def _mains(self, part: str) -> list[psutil.Process]:
        """The processes of that part which `redraft up` started itself."""
        return [process for name, process in parts.parts(self.root) if name == part and process.ppid() == self.root]

    def _signal(self, processes: list[psutil.Process], number: signal.Signals) -> bool:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return bool(processes)

    async def _kill_worker(self) -> None:
        queue = self.rng.choice(QUEUES)
        if self._signal(self._mains(f"worker {queue}"), signal.SIGKILL):
            self._note("kill -9 of a worker", f"the worker for {queue} is killed")

    async def _kill_pool_child(self) -> None:
        queue = self.rng.choice(("edits", "edits", "edits", "bulk", "ops"))
        children = [child for main in self._mains(f"worker {queue}") for child in main.children()]
        if children and self._signal([self.rng.choice(children)], signal.SIGKILL):
            self._note("kill -9 of a pool child", f"a pool child for {queue} is killed")

    async def _freeze_worker(self) -> None:
        queue = self.rng.choice(QUEUES)
        tree = [one for main in self._mains(f"worker {queue}") for one in (main, *main.children(recursive=True))]
        if tree:
            with _frozen(tree):
                self._note("freeze of a worker", f"the worker for {queue} and its pool are frozen")
                await self._last(2, 8)

    async def _kill_api(self) -> None:
        if self._signal(self._mains("api"), signal.SIGKILL):
            self._note("kill -9 of the API", "the API is killed")

    async def _freeze_redis(self) -> None:
        if found := self._mains("valkey"):
            with _frozen(found):
                self._note("freeze of Redis", "Redis is frozen")
                await self._last(1, 6)

    async def _kill_redis(self) -> None:
        if self._signal(self._mains("valkey"), signal.SIGKILL):
            self._note("kill -9 of Redis", "Redis is killed")

    async def _flush_redis(self) -> None:
        if await asyncio.to_thread(self._redis, lambda client: client.flushall()):
            self._note("FLUSHALL", "Redis is emptied")

    async def _fill_redis(self) -> None:
        """Out of memory, with noeviction; tried until it has room again, for Redis may be gone just then."""
        if not await asyncio.to_thread(self._redis, lambda client: client.config_set("maxmemory", 1)):
            return
        self._note("Redis out of memory", "Redis has no room")
        await self._last(1, 5)
        for _ in range(100):
            if await asyncio.to_thread(self._redis, lambda client: client.config_set("maxmemory", 0)):
                return
            await asyncio.sleep(0.3)  # until it answers again
        raise AssertionError("Redis never got its room back")

    def _redis(self, do: Callable[[redis.Redis], object]) -> bool:
        try:
            with redis.Redis.from_url(self.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
                do(client)
        except redis.RedisError:
            return False
        return True

    async def _restart_postgres(self) -> None:
        word, number = self.rng.choice((("fast", signal.SIGINT), ("immediate", signal.SIGQUIT)))
        if self._signal(self._mains("postgres"), number):
            self._note("restart of PostgreSQL", f"PostgreSQL is stopped, {word}, and started again")

    async def _hold_posts(self) -> None:
        """A person's psql, that holds a few posts and then goes away."""
        wanted = self.rng.sample([*self.posts.hot, *self.posts.due[-40:]], self.rng.randint(1, 4))
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.dsn, connect_timeout=2) as person:
                await person.execute("SELECT id FROM posts WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [wanted])
                self._note("a lock held by a person", f"a person holds {len(wanted)} posts")
                await self._last(2, 8)
                await person.rollback()

    async def _mislead_publisher(self) -> None:
        """Some calls are answered 503, some 400, some later than anybody waits for; the effect may have happened."""
        if self.opponent is not None:
            if self._restarting.locked():
                return  # On a slow machine it is still starting since the last one.
            async with self._restarting:
                await asyncio.to_thread(self.opponent.restart)
            self._note("the publisher misbehaves", "the publisher is killed and started again")
            return
        happens, count = self.rng.random() < 0.5, self.rng.randint(1, 5)
        wrong: dict[str, Any] = self.rng.choice((
            {"mode": "status", "status": 503, "effect": happens},
            {"mode": "status", "status": 400, "effect": False},
            {"mode": "late", "seconds": LATE, "effect": happens},
        ))  # fmt: skip
        await asyncio.to_thread(self.reference.behave, {"kind": "publish", "times": count, **wrong})
        self._note("the publisher misbehaves", f"the publisher's next {count} answers: {wrong}")


@contextmanager
def _frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Stopped in here, and running again afterwards, whatever happens in between."""
    pids = [process.pid for process in processes]
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
