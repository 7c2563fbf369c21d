"""plain Celery: one task per edit, its result over Redis, `.get()`. And the tasks of one item each of rows 7 and 10."""

import os
import time
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_process_init
from fastapi import FastAPI, Response

from shared.domain.ids import new_id
from shared.local import die_with_parent
from tests.benchmarks.peers import edit
from tests.benchmarks.peers.edge import ROUTE, WAIT, Authenticated, Change, answer

REDIS = os.environ["REDRAFT_REDIS_URL"]
STAMPS = "bench-stamps"

celery = Celery("plain", broker=REDIS, backend=REDIS)
celery.conf.update(
    result_expires=600,
    # One for each of FastAPI's threads: with the default of ten, thirty of them wait for a connection to send on.
    broker_pool_limit=40,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)

app = FastAPI()


@worker_process_init.connect
def _die_too(**_: Any) -> None:
    die_with_parent.die_with_parent()


@celery.task
def change(edit_id: str, post_id: str, caption: str) -> dict[str, Any]:
    return edit.apply(edit_id, post_id, caption)


@celery.task(ignore_result=True)
def move(post_id: str, seconds: float) -> None:
    edit.move(post_id, seconds)


@celery.task(ignore_result=True)
def nothing() -> None:
    """A task that does nothing: what a message costs."""


@celery.task(ignore_result=True)
def stamp() -> None:
    """Says when the worker came by here."""
    with redis.Redis.from_url(REDIS) as client:
        client.rpush(STAMPS, repr(time.time()))


@app.patch(ROUTE, dependencies=[Authenticated])
def change_post(post_id: str, body: Change) -> Response:
    return answer(change.delay(new_id("edit"), post_id, body.caption).get(timeout=WAIT))
