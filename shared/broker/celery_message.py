"""A message as Celery lays it on a queue in Redis, filled into one that Celery has made once.

Celery and kombu spend a third of a millisecond of CPU on each send; what changes from one to the next are a few fields.
What must not change is held against a message of theirs by a test (docs/decisions/0008).
"""

import base64
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

from celery import Celery
from pydantic_core import from_json, to_json


def message(
    app: Celery, task: str, args: Sequence[object], *, shown: str, eta: datetime | None = None, headers: Any = None
) -> bytes:
    """What goes on the task's queue. `app` knows the routes; `shown` is what Flower shows of the arguments.

    `eta`: not to be started before, an instant with its zone; `headers`: more of them, for the task to read.
    """
    made = from_json(_template(app, task))
    identity = str(uuid4())
    made["body"] = base64.b64encode(to_json([args, {}, made["body"]])).decode()
    made["headers"] |= {
        "id": identity,
        "root_id": identity,
        "parent_id": None,
        "argsrepr": shown,
        "eta": eta.isoformat() if eta else None,
    } | (headers or {})
    made["properties"] |= {"correlation_id": identity, "argsrepr": shown, "delivery_tag": str(uuid4())}
    return to_json(made)


@lru_cache(maxsize=64)
def _template(app: Celery, task: str) -> bytes:
    """A message of Celery's own for this task, its body taken apart. It never leaves the process."""
    with app.connection_for_write("memory://", transport_options={}) as connection:
        channel: Any = connection.channel()
        with app.amqp.Producer(channel, auto_declare=False) as producer:
            app.send_task(task, args=[], kwargs={}, argsrepr="", kwargsrepr="", producer=producer)
        # What a consumer gets is taken apart; here the whole is wanted, as it would lie in Redis.
        made = channel._get(app.amqp.router.route({}, task)["queue"].name)  # noqa: SLF001
    _, _, made["body"] = from_json(base64.b64decode(made["body"]))
    return to_json(made)
