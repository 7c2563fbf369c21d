"""Requests that wait for the end of a bulk job: no thread, no connection, and one look-up for all of them."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import structlog

from api.http.shares import Shares
from shared.store import reschedules as store
from shared.store.db import transaction

MOST: Final = 128
"""Requests of a process that wait at a time."""
LOOK: Final = 0.1
"""Seconds between two looks at all jobs that requests wait for."""

log = structlog.get_logger(__name__)


class JobWaiting:
    """All requests of this process that wait for a job. Lives on the event loop; a thread does the look-ups."""

    def __init__(self, most: int = MOST) -> None:
        self._places = Shares(most)
        self._by_job: dict[str, set[asyncio.Future[None]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    def __len__(self) -> int:
        return len(self._places)

    async def wait(self, job_id: str, seconds: float, owner: str) -> None:
        """Return when the job has ended, or after `seconds`; at once where the workspace `owner` has its share of
        requests that wait, and where the process is about to end.
        """
        if self._closing or seconds <= 0 or not self._places.admits(owner):
            return
        future = asyncio.get_running_loop().create_future()
        self._by_job.setdefault(job_id, set()).add(future)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            with self._places.taken(owner), suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await future
        finally:
            waiters = self._by_job.get(job_id, set())
            waiters.discard(future)
            if not waiters:
                self._by_job.pop(job_id, None)

    def answer_all(self) -> None:
        """Before the process ends: no request waits any longer. The jobs go on."""
        self._closing = True
        self._resolve(list(self._by_job))

    async def close(self) -> None:
        """Answer all requests. Waits for the look-up under way."""
        self.answer_all()
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _resolve(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            for future in self._by_job.get(job_id, ()):
                if not future.done():
                    future.set_result(None)

    async def _look(self) -> None:
        """Look until no request waits."""
        try:
            while self._by_job:
                await asyncio.sleep(LOOK)
                wanted = list(self._by_job)
                try:
                    self._resolve(await asyncio.get_running_loop().run_in_executor(self._thread, _ended, wanted))
                except Exception as error:  # noqa: BLE001  -- whatever ails PostgreSQL, it is asked again
                    log.warning("look_up_failed", waiting=len(wanted), error=type(error).__name__)
        finally:
            self._looking = None


def _ended(job_ids: Sequence[str]) -> list[str]:
    with transaction() as tx:
        return store.ended_among(tx, job_ids)
