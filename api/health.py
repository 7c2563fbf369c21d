"""GET /healthz and /readyz: whether the process is up, and whether it can do its work. They need no key, and are cheap.

Neither uses the threads of requests: a probe must not wait while the process is busy.
"""

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.http import problems
from api.http.reading import NoQuery
from api.http.sources import Source
from api.models.answers import Health, Readiness
from api.models.openapi import carries
from shared.broker import redis_connection
from shared.settings import settings
from shared.store.db import transaction
from shared.store.health import takes_writes

FRESH = 0.25
"""Seconds for which an answer is given again: in a flood of probes, each server is asked four times a second."""

router = APIRouter(tags=["health"], responses=problems.OPEN)


def _database() -> str:
    with transaction() as tx:
        return "up" if takes_writes(tx) else "read_only"


def _redis() -> str:
    return "up" if redis_connection.reachable() else "down"


_ready = {
    "database": Source({"state": _database}, FRESH, settings().database_patience),
    "redis": Source({"state": _redis}, FRESH, settings().redis_timeout + 0.5),
}


@router.get("/healthz")
async def get_health(_: NoQuery) -> Health:
    """The process is up."""
    return Health(status="ok")


@router.get(
    "/readyz",
    response_model=Readiness,
    response_description="They can, without Redis too",
    responses={503: carries(model=Readiness, description="Not without a PostgreSQL that takes writes")},
)
async def get_readiness(_: NoQuery) -> JSONResponse:
    """Whether edits can be accepted."""
    answers = await asyncio.gather(*(source.read() for source in _ready.values()))
    state = {name: answer["state"] or "down" for name, answer in zip(_ready, answers, strict=True)}
    return JSONResponse(state, 200 if state["database"] == "up" else 503)
