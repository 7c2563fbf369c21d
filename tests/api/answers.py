"""What tests of the API say again and again: the error envelope, a client for each key, what lies in a queue."""

import base64
import json
from typing import Any

import httpx
import redis

from tests.loopback import LOOPBACK
from tests.stack import Running


def error(answer: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """The error of an answer, its envelope checked."""
    assert status in (None, answer.status_code), (answer.status_code, answer.text)
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) - {"details"} == {"code", "message", "requestId"}
    assert body["error"]["requestId"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = body["error"]
    return found


def fields(answer: httpx.Response) -> list[str]:
    """The fields that an error names."""
    return [detail["field"] for detail in error(answer).get("details", [])]


def client(stack: Running, secret: str) -> httpx.Client:
    """A client of the running API with another key."""
    assert stack.api is not None
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=stack.api.url, headers=headers, timeout=40, **LOOPBACK)


def messages(stack: Running, queue: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """The messages that wait in a queue, oldest first: their arguments and headers."""
    return messages_at(stack.environment["REDRAFT_REDIS_URL"], queue)


def messages_at(redis_url: str, queue: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """The same of any Redis."""
    with redis.Redis.from_url(redis_url) as broker:
        found = [json.loads(raw) for raw in reversed(broker.lrange(queue, 0, -1))]
    return [(json.loads(base64.b64decode(one["body"]))[0], one["headers"]) for one in found]
