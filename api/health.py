"""GET /healthz and /readyz: whether the process is up, and whether it can do its work. Open to anybody, and cheap.

Both have a way of their own, past every thread that requests use: the busier a process is, the less may its probe wait.
"""

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.sources import Source
from shared import outcomes
from shared.db import transaction
from shared.settings import settings
from shared.store.posts import clock

FRESH = 0.25
"""Seconds for which an answer is given again: a flood of probes asks each server four times a second."""

router = APIRouter()


def _database() -> bool:
    with transaction() as tx:
        clock(tx)
    return True


_ready = {
    "database": Source({"up": _database}, FRESH, settings().database_patience),
    "redis": Source({"up": outcomes.reachable}, FRESH, settings().redis_timeout + 0.5),
}


@router.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process is up."""
    return {"status": "ok"}


@router.get("/readyz", include_in_schema=False)
async def readyz() -> JSONResponse:
    """503 only without PostgreSQL; without Redis edits are still accepted, and the answer says so."""
    answers = await asyncio.gather(*(source.read() for source in _ready.values()))
    state = {name: "up" if answer["up"] else "down" for name, answer in zip(_ready, answers, strict=True)}
    return JSONResponse(state, 200 if state["database"] == "up" else 503)
