"""Builds the ASGI app: routes, lifespan, and the middleware around every request."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel
from starlette.routing import Route
from starlette.types import ASGIApp

from api import (
    accounts,
    creation,
    deletion,
    docs,
    edits,
    health,
    holds,
    many_edits,
    metrics,
    posts,
    publishing,
    reschedule_results,
    reschedules,
    retry,
    siblings,
    undo,
)
from api.context import Context
from api.http import problems, proxies, turns
from api.http.open_files import allow_connections
from api.http.patch_fast_path import PatchFastPath
from api.http.request_id import RequestId
from api.models import openapi
from api.ops import pages as ops
from shared import gc_tuning
from shared.settings import settings
from shared.telemetry import logs, tracing

PATCH = Route(posts.ONE, posts.edit_post_directly, methods=["PATCH"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Callable[[], object]]]:
    """One Context for the life of the process. Each connection gets `on_shutdown` (api/http/protocol.py)."""
    allow_connections()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(turns.SWITCH)
    context = Context(settings())
    app.state.context = context
    context.submission.start()
    tracing.start("api")
    gc_tuning.freeze()
    async with siblings.reporting(partial(metrics.of_process, context)):
        yield {"on_shutdown": context.shorten_waits}
    gc_tuning.unfreeze()
    sys.setswitchinterval(switch)
    await context.close()
    tracing.stop()


class Redraft(FastAPI):
    """The app. Its document is FastAPI's, completed by api/models/openapi.py."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once. That takes longer than an edit should wait: call it in a thread."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document(self)
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """`edit_post` is editPost in the document."""
    return to_camel(route.name)


def build() -> Redraft:
    """The app without its outermost middleware."""
    built = Redraft(
        lifespan=lifespan, redirect_slashes=False, openapi_url=None, generate_unique_id_function=operation_id
    )
    for kind, handler in problems.HANDLERS.items():
        built.add_exception_handler(kind, handler)
    for room in (
        *(posts, creation, deletion, edits, many_edits, undo, accounts, reschedules, reschedule_results, retry),
        *(holds, publishing, docs, health, metrics, ops),
    ):
        built.include_router(room.router)

    return built


logs.configure(process=siblings.process_name, request_id=problems.request_id.get)
_built = build()
app: ASGIApp = proxies.behind(
    RequestId(metrics.Observed(PatchFastPath(_built, PATCH))), settings().trusted_proxies, settings().root_path
)
