"""Builds the ASGI app: routes, lifespan, and the middleware around every request."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from api import accounts, creation, deletion, docs, edits, health, metrics, posts, reschedules, retry
from api.context import Context
from api.http import problems, protocol, proxies, turns
from api.http.open_files import allow_connections
from api.http.patch_fast_path import PatchFastPath
from api.http.request_id import RequestId
from api.ops import pages as ops
from shared import gc_tuning
from shared.settings import settings
from shared.telemetry import logs, tracing

PATCH = Route(posts.ONE, posts.patch_post, methods=["PATCH"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[protocol.AppState]:
    """One Context for the life of the process."""
    allow_connections()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(turns.SWITCH)
    context = Context(settings())
    app.state.context = context
    context.submission.start()
    tracing.start("api")
    gc_tuning.freeze()
    yield {"on_shutdown": context.submission.waiting.shorten_waits}
    gc_tuning.unfreeze()
    sys.setswitchinterval(switch)
    await context.close()
    tracing.stop()


def build() -> FastAPI:
    """The app without its outermost middleware."""
    built = FastAPI(title="Redraft", version="1", lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    for kind, handler in problems.HANDLERS.items():
        built.add_exception_handler(kind, handler)
    # PatchFastPath serves this route. It is listed here for metrics and for `Allow`, which must know every route.
    built.router.routes.insert(0, PATCH)
    for room in (posts, creation, deletion, edits, accounts, reschedules, retry, docs, health, metrics, ops):
        built.include_router(room.router)

    return built


logs.configure(process=lambda: "api", request_id=problems.request_id.get)
_built = build()
app: ASGIApp = proxies.behind(
    RequestId(metrics.Observed(PatchFastPath(_built, PATCH), _built.routes)), settings().trusted_proxies
)
