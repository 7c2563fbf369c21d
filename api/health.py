"""GET /healthz and /readyz: whether the process is up, and whether it can do its work. They need no key, and are cheap.

Neither uses the threads of requests: a probe must not wait while the process is busy.
"""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from api.http import reading
from api.http.sources import Source
from shared.broker import redis_connection
from shared.settings import settings
from shared.store.db import transaction
from shared.store.health import takes_writes

FRESH = 0.25
"""Seconds for which an answer is given again: in a flood of probes, each server is asked four times a second."""

router = APIRouter()


def _database() -> str:
    with transaction() as tx:
        return "up" if takes_writes(tx) else "read_only"


def _redis() -> str:
    return "up" if redis_connection.reachable() else "down"


_ready = {
    "database": Source({"state": _database}, FRESH, settings().database_patience),
    "redis": Source({"state": _redis}, FRESH, settings().redis_timeout + 0.5),
}


@router.get("/healthz", include_in_schema=False)
async def healthz(request: Request) -> dict[str, str]:
    """The process is up."""
    reading.check_query(request)
    return {"status": "ok"}


@router.get("/readyz", include_in_schema=False)
async def readyz(request: Request) -> JSONResponse:
    """503 only without a PostgreSQL that takes writes. Without Redis edits are still accepted, so that is a 200."""
    reading.check_query(request)
    answers = await asyncio.gather(*(source.read() for source in _ready.values()))
    state = {name: answer["state"] or "down" for name, answer in zip(_ready, answers, strict=True)}
    return JSONResponse(state, 200 if state["database"] == "up" else 503)
