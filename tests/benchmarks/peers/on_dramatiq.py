"""Dramatiq: one message per edit, its result over Redis, waiting in Redis (BRPOPLPUSH) for its end."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from fastapi import FastAPI, Response

from shared.domain.ids import new_id
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, WAIT, Authenticated, Change, answer

REDIS = os.environ["REDRAFT_REDIS_URL"]

broker = RedisBroker(url=REDIS)
broker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
dramatiq.set_broker(broker)

app = FastAPI()


@dramatiq.actor(store_results=True, max_retries=0)
def change(edit_id: str, post_id: str, caption: str) -> dict[str, Any]:
    return edit.apply(edit_id, post_id, caption)


@app.patch(ROUTE, dependencies=[Authenticated])
def change_post(post_id: str, body: Change) -> Response:
    message = change.send(new_id("edit"), post_id, body.caption)
    return answer(message.get_result(block=True, timeout=int(WAIT * 1000)))
