"""Many clients at once, in one process: each sends an edit, notes what it was answered, and sends the next one.

As in tests/faults/load.py, most edits carry an Idempotency-Key and are repeated until somebody answers.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests import factories
from tests.faults.load import AGAIN, patch
from tests.soak.connection import Answer, Connection, UnansweredError
from tests.soak.log import Log
from tests.soak.posts import Posts

KEYED = 0.7
SOON = 0.01
PREFERENCES = (None, None, None, "respond-async", "wait=1", "wait=20")
REPEATED_FOR = 90.0


@dataclass
class Tally:
    """What all clients together have seen so far. Times are seconds since the load began."""

    began: float = field(default_factory=time.monotonic)
    accepted: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    stall: float = 0.0
    stall_at: float = 0.0
    slowest: float = 0.0
    slowest_at: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def count(self, outcome: str) -> None:
        self.answers[outcome] = self.answers.get(outcome, 0) + 1

    def accept(self, took: float) -> None:
        """An edit was answered 2xx. A stall is the time in which no client was."""
        now = time.monotonic()
        self.accepted += 1
        if now - self._last > self.stall:
            self.stall, self.stall_at = now - self._last, self._last - self.began
        if took > self.slowest:
            self.slowest, self.slowest_at = took, now - took - self.began
        self._last = now


@dataclass
class Clients:
    """The load. `run` returns when `edits` were accepted or `stop` was called, each client with its last answer."""

    port: int
    posts: Posts
    log: Log
    seed: int
    count: int
    edits: int
    tally: Tally = field(default_factory=Tally)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        connection = Connection(self.port, factories.SECRET)
        tags: dict[str, str] = {}
        sent = 0
        try:
            while not self.over.is_set():
                await self._want(connection, rng, tags, f"c{number}-{sent}")
                sent += 1
        finally:
            connection.close()

    async def _want(self, connection: Connection, rng: random.Random, tags: dict[str, str], name: str) -> None:
        """One edit: sent, and if it has a key, repeated until it is answered."""
        post_id = self.posts.any(rng)
        body, headers = _body(rng, name), _headers(rng, name, tags.get(post_id))
        deadline = time.monotonic() + REPEATED_FOR
        while True:
            answer = await self._send(connection, post_id, body, headers)
            if answer is not None and 200 <= answer.status < 300:
                if "etag" in answer.headers and post_id in self.posts.hot:
                    tags[post_id] = answer.headers["etag"]
                return
            again = answer is None or answer.status == 503 or (answer.status in AGAIN and not answer.headers)
            if "Idempotency_Key" not in headers or not again or time.monotonic() > deadline:
                return
            await asyncio.sleep(rng.uniform(0.05, 0.5))  # as a good client waits before it asks again

    async def _send(
        self, connection: Connection, post_id: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Answer | None:
        request, key = headers["X_Request_Id"], headers.get("Idempotency_Key")
        sent, began = time.time(), time.monotonic()
        try:
            answer = await connection.ask("PATCH", f"/v1/posts/{post_id}", body, **headers)
        except UnansweredError as error:
            self.tally.count("no answer")
            self.log.add(request, post_id, body, sent, key=key, error=str(error))
            return None
        answered = time.time()
        self.tally.count(str(answer.status))
        if 200 <= answer.status < 300:
            self.tally.accept(time.monotonic() - began)
            if self.tally.accepted >= self.edits:
                self.over.set()
        self.log.add(
            request, post_id, body, sent,
            key=key, answered=answered, status=answer.status, headers=answer.headers, answer=answer.body,
        )  # fmt: skip
        return answer


def _body(rng: random.Random, name: str) -> dict[str, Any]:
    """As in the faults' load; and now and then a post is moved to where it goes out within two minutes."""
    body = patch(rng, name)
    if rng.random() < SOON:
        tokyo = datetime.now(UTC) + timedelta(hours=9, minutes=rng.randint(1, 2))
        body |= {"scheduledTime": tokyo.strftime("%Y-%m-%dT%H:%M"), "timezone": "Asia/Tokyo"}
    return body


def _headers(rng: random.Random, name: str, tag: str | None) -> dict[str, str]:
    headers = {"X_Request_Id": name}
    if rng.random() < KEYED:
        headers["Idempotency_Key"] = f"key-{name}"
    prefer = rng.choice(PREFERENCES)
    if prefer is not None:
        headers["Prefer"] = prefer
    if tag is not None and rng.random() < 0.05:
        headers["If_Match"] = tag
    return headers
