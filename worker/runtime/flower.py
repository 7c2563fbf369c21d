"""Flower, behind our own password check: `python -m worker.runtime.flower`, then the arguments of `celery`.

Flower 2.2 allows guesses as fast as it can answer, logs none of them, and answers 500 to a password that is not ASCII.
Each of its handlers gets ours as a base, which judges passwords as /ops does (shared/domain/guessing.py).
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog
from celery.__main__ import main as celery
from flower import app as flower_app
from flower import command as flower_command
from flower import urls
from flower.views import BaseHandler
from tornado.ioloop import IOLoop
from tornado.routing import URLSpec
from tornado.web import HTTPError, RequestHandler

from shared.domain import addresses
from shared.domain.guessing import MOST, PASS_LIVES, Guesses, Passes, Verdict, basic, same
from shared.settings import settings
from shared.task_names import QUEUES
from shared.telemetry import logs

COOKIE: Final = "redraft_flower"
"""It holds a pass (shared/domain/guessing.py)."""

BODY_LIMIT = 64 * 1024
"""Bytes. Forms and task arguments are small, and a body is read before its password is judged: Tornado (6.5) reads
100 MB by default."""

log = structlog.get_logger(__name__)
_guesses = Guesses()
_trusted = addresses.networks(settings().trusted_proxies)


class Door(RequestHandler):
    """A base for Flower's handlers. Requests without a password are left to Flower: most pages answer 401."""

    verdict: Verdict | None = None
    _hung_up: asyncio.Event | None = None

    async def prepare(self) -> None:
        """Judge the password, if one was sent. `remote_ip` is the client's own address from here on."""
        forwarded = self.request.headers.get_list("X-Forwarded-For")
        self.request.remote_ip = addresses.client(self.request.remote_ip or "", forwarded, _trusted)
        allowed: Sequence[str] = self.application.options.basic_auth or ()  # type: ignore[attr-defined]  # Flower's
        given = basic(self.request.headers.get("Authorization", "")) if allowed else None
        if given is not None:
            await self._judge(":".join(given), allowed)
        if not self._finished and (ready := super().prepare()) is not None:
            await ready

    async def _judge(self, given: str, allowed: Sequence[str]) -> None:
        passes = Passes("flower", *allowed)
        source, known = passes.source(self.get_cookie(COOKIE), self.request.remote_ip or "")
        self._hung_up = asyncio.Event()
        # All are compared, so that the time says nothing about which one matched.
        right = any([same(given, one) for one in allowed])  # noqa: C419
        self.verdict = await _guesses.judge(source, self._hung_up.wait, right=right)
        if self.verdict is Verdict.CROWDED:
            self.set_status(429)
            self.set_header("Retry-After", str(int(MOST)))
            self.finish("Too many guesses at once. Wait some seconds, then try again.")
        elif self.verdict is Verdict.WRONG and (number := _guesses.worth_a_line()):
            log.warning("flower_password_wrong", client=self.request.remote_ip, number=number)
        elif self.verdict is Verdict.RIGHT and not known:
            self.set_cookie(COOKIE, passes.new(), max_age=PASS_LIVES, httponly=True, samesite="Strict")

    def get_active_queue_names(self) -> list[str]:
        """All queues. Flower (2.2) shows those that it has asked workers for, and at its start it has asked none."""
        return sorted(QUEUES)

    def on_connection_close(self) -> None:
        """The client no longer waits."""
        if self._hung_up is not None:
            self._hung_up.set()
        super().on_connection_close()

    def get_current_user(self) -> Any:
        """True for the right password. Raises HTTPError 401 for a wrong one; no password is Flower's own case."""
        if self.verdict is None:
            return super().get_current_user()
        if self.verdict is not Verdict.RIGHT:
            raise HTTPError(401)
        return True


def with_door(handlers: Sequence[Any]) -> list[Any]:
    """Flower's routes, with `Door` as the first base of each of Flower's own handlers."""
    made: list[Any] = []
    for one in handlers:
        spec = one if isinstance(one, URLSpec) else URLSpec(*one)
        handler = spec.handler_class
        if issubclass(handler, BaseHandler):
            handler = type(handler.__name__, (Door, handler), {})
        made.append(URLSpec(spec.regex.pattern, handler, spec.kwargs, spec.name))
    return made


def end(number: int, _frame: object) -> None:
    """Flower's end at a SIGTERM: the loop ends after its round, and Flower saves its history.

    Flower (2.2) raises SystemExit wherever its main thread is. Where that is the start of a thread of its pool, the
    interpreter waits for this thread without end.
    """
    log.info("flower_ends", signal=number)
    loop = IOLoop.current()
    # As a signal's handler may: https://docs.python.org/3/library/asyncio-eventloop.html
    loop.asyncio_loop.call_soon_threadsafe(loop.stop)  # type: ignore[attr-defined]  # BaseAsyncIOLoop has it


if __name__ == "__main__":
    # Flower reads its file on disk back by pickle: no other user may write it, or needs to read it.
    os.umask(0o077)
    logs.configure(process=lambda: "flower")
    log.info("flower_starts")
    urls.handlers[:] = with_door(urls.handlers)
    flower_command.sigterm_handler = end
    flower_app.HTTPServer = partial(flower_app.HTTPServer, max_body_size=BODY_LIMIT)
    sys.exit(celery())
