"""Asking a server how it is, for everybody who wants to know at once, without any thread that requests need."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import redis
import structlog

from shared.store import db

log = structlog.get_logger(__name__)


class Source:
    """A server that is asked some questions in turn, one round at a time, for all who ask meanwhile together.

    `fresh`: seconds for which an answer is given again. `patience`: seconds that a reader waits; a server that hangs
    costs him those, and this process one thread, which does not keep it from ending.
    """

    def __init__(self, questions: Mapping[str, Callable[[], Any]], fresh: float, patience: float) -> None:
        self._questions = questions
        self._fresh, self._patience = fresh, patience
        self._answers: dict[str, Any] = {}
        self._round: asyncio.Future[None] | None = None
        self._until = 0.0

    async def read(self) -> dict[str, Any]:
        """Question -> what was answered, as it was `fresh` seconds ago at most; None where nothing was."""
        loop = asyncio.get_running_loop()
        if self._round is None and loop.time() >= self._until:
            self._answers = dict.fromkeys(self._questions)
            self._round = loop.create_future()
            ended = partial(loop.call_soon_threadsafe, self._end, loop)
            threading.Thread(target=self._ask, args=(self._answers, ended), name="figures", daemon=True).start()
        if self._round is not None:
            await asyncio.wait([self._round], timeout=self._patience)
        return dict(self._answers)

    def _ask(self, answers: dict[str, Any], ended: Callable[[], object]) -> None:
        for name, ask in self._questions.items():
            try:
                answers[name] = ask()
            except Exception as error:
                # The edge: whatever ails one, the others are shown; None says that there was no answer.
                if db.is_transient(error) or isinstance(error, redis.RedisError):
                    log.warning("figures_missing", source=name, error=type(error).__name__)
                else:
                    log.exception("figures_missing", source=name)
        with suppress(RuntimeError):  # the loop has gone meanwhile
            ended()

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._round is not None:
            self._round.set_result(None)
        self._round, self._until = None, loop.time() + self._fresh
