"""Builds the ASGI app: routes, lifespan, and what wraps every request (SPEC 4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from api import accounts, creation, deletion, docs, edits, metrics, ops, posts, problems, protocol, reschedules
from api.context import Context
from api.direct import Direct
from api.envelope import Envelope
from api.open_files import allow_connections
from shared import garbage, logs, outcomes, tracing
from shared.errors import RedraftError
from shared.settings import settings
from shared.store.posts import clock

PATCH = Route(posts.ONE, posts.patch_post, methods=["PATCH"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[protocol.AppState]:
    """One Context for the life of the process."""
    allow_connections()
    context = Context(settings())
    app.state.context = context
    context.submission.start()
    tracing.start("api")
    garbage.settle()
    yield {"ends_soon": context.submission.waiting.hurry}
    garbage.unsettle()
    await context.close()
    tracing.stop()


def build() -> FastAPI:
    """The app without its outermost middleware."""
    built = FastAPI(title="Redraft", version="1", lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    for kind, handler in problems.HANDLERS.items():
        built.add_exception_handler(kind, handler)
    # Served by Direct; here for what must know every route: metrics, `Allow`.
    built.router.routes.insert(0, PATCH)
    for room in (posts, creation, deletion, edits, accounts, reschedules, docs, metrics, ops):
        built.include_router(room.router)

    @built.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """The process is up."""
        return {"status": "ok"}

    @built.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        """503 only without PostgreSQL; without Redis edits are still accepted, and the answer says so."""
        context: Context = built.state.context
        state: dict[str, Any] = {"database": "up", "redis": "up"}
        try:
            await context.read(clock)
        except RedraftError:
            state["database"] = "down"
        if not await asyncio.to_thread(outcomes.reachable):
            state["redis"] = "down"
        return JSONResponse(state, 200 if state["database"] == "up" else 503)

    return built


logs.configure(process=lambda: "api", request_id=problems.request_id.get)
_built = build()
app: ASGIApp = Envelope(metrics.Observed(Direct(_built, PATCH), _built.routes))
