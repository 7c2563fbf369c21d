"""The short way to the edit itself: what FastAPI does around every handler costs an edit as much as all that we do."""

from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http import problems


class PatchFastPath:
    """Serves the route that PATCHes by itself, with the same answers to what goes wrong; all else goes to the app."""

    def __init__(self, app: ASGIApp, route: Route) -> None:
        self.app, self.route = app, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match, found = self.route.matches(scope) if scope.get("method") == "PATCH" else (Match.NONE, {})
        if match is not Match.FULL:
            await self.app(scope, receive, send)
            return
        scope.update(found, app=self.app)
        request = Request(scope, receive, send)
        try:
            response = await self.route.endpoint(request)
        except Exception as error:  # noqa: BLE001  -- the edge: a bug is answered, with the id under which it is logged
            handler = next(handler for kind, handler in problems.HANDLERS.items() if isinstance(error, kind))
            response = await handler(request, error)
        await response(scope, receive, send)
