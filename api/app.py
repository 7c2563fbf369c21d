"""Builds the ASGI app: routes, lifespan, and the middleware that names every request (SPEC 4)."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import edits, posts, problems
from api.context import Context
from api.problems import request_id
from shared import outcomes
from shared.errors import RedraftError
from shared.ids import new_id
from shared.settings import settings
from shared.store.posts import clock

_SANE_ID = re.compile(rb"[A-Za-z0-9._~:@+/=-]{1,128}")


class RequestIds:
    """Gives every answer an X-Request-Id: the client's, if it sent a sane one, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        chosen = given if _SANE_ID.fullmatch(given) else new_id("req").encode()
        request_id.set(chosen.decode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"x-request-id", chosen))
            await send(message)

        await self.app(scope, receive, named)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One Context for the life of the process."""
    context = Context(settings())
    app.state.context = context
    context.submission.start()
    yield
    await context.close()


def build() -> FastAPI:
    """The app without its outermost middleware."""
    built = FastAPI(title="Redraft", version="1", lifespan=lifespan, redirect_slashes=False)
    built.add_exception_handler(RedraftError, problems.on_redraft_error)
    built.add_exception_handler(HTTPException, problems.on_http_error)
    built.add_exception_handler(Exception, problems.on_surprise)
    built.include_router(posts.router)
    built.include_router(edits.router)

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
        if not await context.in_thread(outcomes.reachable):
            state["redis"] = "down"
        return JSONResponse(state, 200 if state["database"] == "up" else 503)

    return built


app: ASGIApp = RequestIds(build())
