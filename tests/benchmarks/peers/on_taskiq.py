"""taskiq: one task per edit over a Redis stream, its result over Redis, `wait_result`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from shared.domain.ids import new_id
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, WAIT, Authenticated, Change, answer

REDIS = os.environ["REDRAFT_REDIS_URL"]
# It looks for a result again and again; its default of 0.2 s would be the latency, much less only loads Redis.
LOOK_EVERY = 0.01

broker = RedisStreamBroker(REDIS).with_result_backend(RedisAsyncResultBackend(REDIS, result_ex_time=600))


@broker.task
def change(edit_id: str, post_id: str, caption: str) -> dict[str, Any]:
    return edit.apply(edit_id, post_id, caption)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.patch(ROUTE, dependencies=[Authenticated])
async def change_post(post_id: str, body: Change) -> Response:
    task = await change.kiq(new_id("edit"), post_id, body.caption)
    result = await task.wait_result(check_interval=LOOK_EVERY, timeout=WAIT)
    if result.is_err:
        raise result.error
    return answer(result.return_value)
