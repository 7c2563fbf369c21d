"""PgQueuer: one job per edit in PostgreSQL, and its CompletionWatcher to wait for the end."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import psycopg
import uvloop
from fastapi import FastAPI, HTTPException, Response
from pgqueuer import Job, PgQueuer, PsycopgDriver, Queries, run
from pgqueuer.core.completion import CompletionWatcher
from sqlalchemy import select

from shared.domain.ids import new_id
from shared.store.tables import edits
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, WAIT, Authenticated, Change, answer

DSN = os.environ["REDRAFT_DATABASE_URL"].replace("+psycopg", "", 1)
# Its psycopg driver is one connection; so many take turns, for else each request would wait for the one before.
PRODUCERS = 8
# How long it gathers notifications before it asks; the default of 50 ms would be the latency.
DEBOUNCE = timedelta(milliseconds=5)
_RESULT = select(edits.c.id.label("edit_id"), edits.c.revision, edits.c.result)


class Driver(PsycopgDriver):  # type: ignore[misc]  # no types: its package is there for `make bench` only
    """PgQueuer's psycopg driver, listening on a connection of its own.

    On a single one each query waits until the wait for a notification is over, up to a second where little happens.
    """

    def __init__(self, connection: psycopg.AsyncConnection, listening: PsycopgDriver) -> None:
        super().__init__(connection)
        self._listening = listening

    async def add_listener(self, channel: str, callback: Callable[[str], None]) -> None:
        await self._listening.add_listener(channel, callback)

    async def remove_listener(self, channel: str, callback: Callable[[str], None]) -> None:
        await self._listening.remove_listener(channel, callback)

    async def __aenter__(self) -> Self:
        await self._listening.__aenter__()
        entered: Self = await super().__aenter__()
        return entered

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._listening.__aexit__(*error)


async def _connect() -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(DSN, autocommit=True)


async def _driver() -> Driver:
    return Driver(await _connect(), PsycopgDriver(await _connect()))


@asynccontextmanager
async def worker() -> AsyncIterator[PgQueuer]:
    """What a worker process runs."""
    manager = PgQueuer(await _driver())

    @manager.entrypoint("change")
    async def change(job: Job) -> None:
        await asyncio.to_thread(edit.apply, **json.loads(job.payload), keep_result=True)

    yield manager


class Producers:
    """Connections to put jobs in with, and a watcher of their ends."""

    _watcher: CompletionWatcher

    def __init__(self) -> None:
        self._free: asyncio.LifoQueue[Queries] = asyncio.LifoQueue()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        for _ in range(PRODUCERS):
            self._free.put_nowait(Queries(PsycopgDriver(await _connect())))
        async with (
            await _driver() as driver,
            CompletionWatcher(driver, queries=Queries(driver), debounce=DEBOUNCE) as watcher,
        ):
            self._watcher = watcher
            yield

    async def run(self, **arguments: str) -> str:
        """Put a job in and wait for its end."""
        queries = await self._free.get()
        try:
            (job_id,) = await queries.enqueue("change", json.dumps(arguments).encode())
        finally:
            self._free.put_nowait(queries)
        return await asyncio.wait_for(self._watcher.wait_for(job_id), WAIT)


producers = Producers()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with producers.opened():
        yield


app = FastAPI(lifespan=lifespan)


def _result(edit_id: str) -> dict[str, object] | None:
    with edit.engine.connect() as tx:
        row = tx.execute(_RESULT.where(edits.c.id == edit_id)).mappings().one_or_none()
        return dict(row) if row else None


@app.patch(ROUTE, dependencies=[Authenticated])
async def change_post(post_id: str, body: Change) -> Response:
    edit_id = new_id("edit")
    await producers.run(edit_id=edit_id, post_id=post_id, caption=body.caption)
    end = await asyncio.to_thread(_result, edit_id)
    if end is None:
        raise HTTPException(409, "The edit was refused or failed")
    return answer({"status": 200, "body": end["result"], **end})


async def _prepare() -> None:
    """`pgq install`, and `pgq autovac`, the first point of its tuning guide's checklist."""
    queries = Queries(await _driver())
    await queries.install()
    await queries.optimize_autovacuum()


async def _work() -> None:
    # `pgq run` itself: its command line in this release stumbles over its own --log-level with our Typer.
    await run(worker)


if __name__ == "__main__":
    uvloop.run(_prepare() if sys.argv[1] == "prepare" else _work())
