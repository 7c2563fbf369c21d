"""The short way to the edit itself: what FastAPI does around every handler costs an edit as much as all that we do."""

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api import problems
from shared.errors import RedraftError


class Direct:
    """Serves the route that PATCHes by itself, with the same answers to what goes wrong; all else goes to the app."""

    def __init__(self, app: ASGIApp, route: Route, serve: Callable[[Request], Awaitable[Response]]) -> None:
        self.app, self.route, self.serve = app, route, serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match, found = self.route.matches(scope) if scope.get("method") == "PATCH" else (Match.NONE, {})
        if match is not Match.FULL:
            await self.app(scope, receive, send)
            return
        scope.update(found, app=self.app)
        request = Request(scope, receive, send)
        try:
            response = await self.serve(request)
        except RedraftError as error:
            response = await problems.on_redraft_error(request, error)
        except HTTPException as error:
            response = await problems.on_http_error(request, error)
        except Exception as error:  # noqa: BLE001  -- the edge: a bug is answered, with the id under which it is logged
            response = await problems.on_surprise(request, error)
        await response(scope, receive, send)
