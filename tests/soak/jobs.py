"""Bulk jobs beside the edits, one after the other: some are canceled half-way, some are reverted."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests import factories
from tests.soak.connection import Connection, UnansweredError
from tests.soak.posts import BULK_ACCOUNT

PATH = "/v1/reschedules"
PAUSE = 5.0
ENDED = ("done", "canceled", "failed")
GONE = 180.0


@dataclass
class Jobs:
    """`ended`: every job that was accepted, as its client saw it last."""

    port: int
    rng: random.Random
    over: asyncio.Event
    ended: list[dict[str, Any]] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    async def run(self) -> None:
        connection = Connection(self.port, factories.SECRET)
        number, forward = 0, True
        try:
            while not self.over.is_set():
                number += 1
                body = {"filter": {"accountIds": [BULK_ACCOUNT]}, "shift": "PT26H" if forward else "-PT26H"}
                forward = not forward
                job = await self._made(connection, PATH, body, f"job-{number}")
                if self.rng.random() < 0.2:
                    # 409: it had ended already, or this is a repeat of a cancel that was heard.
                    await self._made(connection, f"{PATH}/{job['id']}/cancel", None, None, fine=409)
                ended = await self._end(connection, str(job["id"]))
                if ended["status"] in ("done", "canceled") and self.rng.random() < 0.3:
                    path = f"{PATH}/{job['id']}/revert"
                    inverse = await self._made(connection, path, None, f"revert-{number}")
                    await self._end(connection, str(inverse["id"]))
                await asyncio.sleep(PAUSE)  # jobs come now and then, not in a stream
        finally:
            connection.close()

    async def _made(
        self, connection: Connection, path: str, body: Any, key: str | None, *, fine: int = 0
    ) -> dict[str, Any]:
        """Sent until somebody answers; what the answer says."""
        headers = {} if key is None else {"Idempotency_Key": key}
        while True:
            try:
                answer = await connection.ask("POST", path, body, **headers)
            except UnansweredError:
                answer = None
            if answer is not None and answer.status < 500 and answer.status != 429:
                found: dict[str, Any] = answer.json()
                if answer.status >= 400 and answer.status != fine:
                    raise AssertionError(f"POST {path} was answered {answer.status}: {found}")
                return found
            await asyncio.sleep(0.3)  # as a client waits before it asks again

    async def _end(self, connection: Connection, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + GONE
        job: dict[str, Any] = {"id": job_id, "status": "unknown"}
        while time.monotonic() < deadline:
            try:
                answer = await connection.ask("GET", f"{PATH}/{job_id}")
                job = answer.json() if answer.status == 200 else job
            except UnansweredError:
                pass
            if job["status"] in ENDED:
                self.ended.append(job)
                return job
            await asyncio.sleep(0.25)  # how often a client looks
        self.stuck.append(job_id)
        return job
