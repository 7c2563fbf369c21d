"""Where the parts of Redraft are, for commands that look at more than the database: settings, else `stack.json`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.local import ownership
from shared.local.datadir import STACK_FILE

if TYPE_CHECKING:
    from shared.domain.waits import Broker


@dataclass(frozen=True, slots=True)
class Parts:
    """URLs; empty where nothing says where that part is."""

    database_url: str
    redis_url: str
    api_url: str
    flower_url: str


def stack_of(data_dir: Path) -> Any:
    """What the stack that runs in `data_dir` says of itself. OSError where none does, ValueError for no JSON.

    LocalError where another user could have written it: the file says to which servers this command goes.
    """
    return json.loads(ownership.read_file(data_dir / STACK_FILE))


def parts(data_dir: Path) -> Parts:
    """What the environment says, and, of what it does not, what the stack that runs in `data_dir` says."""
    from shared.settings import settings  # noqa: PLC0415 - heavy imports wait until the command runs

    try:
        stack = stack_of(data_dir)
        said = {name: str(stack[name]) for name in ("databaseUrl", "redisUrl", "apiUrl", "flowerUrl")}
    except (OSError, ValueError, KeyError, TypeError):
        said = {}
    config = settings()
    if config.database_url and config.database_url != said.get("databaseUrl"):
        # The environment names another installation: the other parts of this folder's stack do not belong to it.
        said = {}
    return Parts(
        config.database_url or said.get("databaseUrl", ""),
        config.redis_url or said.get("redisUrl", ""),
        said.get("apiUrl", ""),
        config.flower_url or said.get("flowerUrl", ""),
    )


@contextmanager
def reaching(found: Parts) -> Iterator[None]:
    """While this lasts, `settings()` says where the parts are, so that ringing and asking Celery find them, and what is
    logged goes to standard error: standard output is the command's answer.
    """
    import structlog  # noqa: PLC0415 - heavy imports wait until the command runs

    from shared.broker import queue, redis_connection  # noqa: PLC0415 - as above
    from shared.settings import settings  # noqa: PLC0415

    wanted = {"REDRAFT_DATABASE_URL": found.database_url, "REDRAFT_REDIS_URL": found.redis_url}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: url for name, url in wanted.items() if url})
    caches = (settings.cache_clear, queue.sender.cache_clear, redis_connection.client.cache_clear)
    for forget in caches:
        forget()
    logging = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**logging)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for forget in caches:
            forget()


def ask_redis(data_dir: Path) -> "Broker":
    """What Redis says, where its place is known: whether it takes writes, of which workers it has heard."""
    from shared.broker import redis_health  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.domain.waits import Broker  # noqa: PLC0415

    found = parts(data_dir)
    if not found.redis_url:
        return Broker()
    with reaching(found):
        return redis_health.read()
