"""The API as it was before workers stayed awake: each doorbell is a message. `uvicorn tests.faults.older_api:app`."""

from collections.abc import Sequence

import redis
import redis.asyncio

from api.app import app
from shared import task_names
from shared.broker import doorbells, queue

__all__ = ["app"]


async def ring_on_loop(
    broker: redis.asyncio.Redis, post_ids: Sequence[str], reply_to: str | None, room: int = 0
) -> doorbells.Outcome:
    try:
        await queue.send_on_loop(broker, task_names.EDITS_APPLY, [list(post_ids), reply_to], queue.readable(post_ids))
    except redis.RedisError:
        return "failed"
    return "sent"


doorbells.ring_on_loop = ring_on_loop
