"""Procrastinate: one job per edit in PostgreSQL. It has no way to wait for a job's end, so one query looks for all."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Response
from procrastinate import App, PsycopgConnector

from shared.domain.ids import new_id
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, WAIT, Authenticated, Change, answer

LOOK_EVERY = 0.01
_ENDED = """
    SELECT j.id, e.id AS edit_id, e.revision, e.result FROM procrastinate_jobs j
    LEFT JOIN edits e ON e.id = j.args->>'edit_id'
    WHERE j.id = ANY(%(ids)s::bigint[]) AND j.status NOT IN ('todo', 'doing')
"""

queue = App(
    connector=PsycopgConnector(
        conninfo=os.environ["REDRAFT_DATABASE_URL"].replace("+psycopg", "", 1), min_size=4, max_size=16
    )
)


@queue.task
def change(edit_id: str, post_id: str, caption: str) -> None:
    """A plain function: the worker runs it in a thread."""
    edit.apply(edit_id, post_id, caption, keep_result=True)


class Waiting:
    """The requests of this process that wait for a job, and the one query that looks for all of them."""

    def __init__(self) -> None:
        self._futures: dict[int, asyncio.Future[dict[str, object]]] = {}

    async def end_of(self, job_id: int) -> dict[str, object]:
        future = asyncio.get_running_loop().create_future()
        self._futures[job_id] = future
        try:
            return await asyncio.wait_for(future, WAIT)
        finally:
            del self._futures[job_id]

    async def look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not self._futures:
                continue
            for row in await queue.connector.execute_query_all_async(_ENDED, ids=list(self._futures)):
                future = self._futures.get(row["id"])
                if future is not None and not future.done():
                    future.set_result(row)


waiting = Waiting()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with queue.open_async():
        looking = asyncio.create_task(waiting.look())
        yield
        looking.cancel()


app = FastAPI(lifespan=lifespan)


@app.patch(ROUTE, dependencies=[Authenticated])
async def change_post(post_id: str, body: Change) -> Response:
    job_id = await change.defer_async(edit_id=new_id("edit"), post_id=post_id, caption=body.caption)
    end = await waiting.end_of(job_id)
    if end["result"] is None:
        raise HTTPException(409, "The edit was refused or failed")
    return answer({"status": 200, "body": end["result"], **end})
