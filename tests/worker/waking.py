"""What a worker is woken for: an edit that waits, and the message that names its post."""

import base64
import json
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine

from tests import factories


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def edited(engine: Engine, caption: str = "second") -> tuple[str, str]:
    """A post and its queued edit."""
    with engine.begin() as tx:
        post = factories.post(tx)
        return post, factories.edit(tx, post, {"caption": caption})


def json_args(raw: bytes | str) -> list[str]:
    body = json.loads(base64.b64decode(json.loads(raw)["body"]))
    found: list[str] = body[0][0]
    return found
