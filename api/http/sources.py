"""Asks PostgreSQL and Redis for their state, once for all who ask together, in no thread that requests need."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import redis
import structlog

from api.http.coalescer import Coalescer
from shared.store import db

log = structlog.get_logger(__name__)


class Source:
    """A server that is asked some questions, one after another. All who read meanwhile share the answers.

    `fresh`: seconds for which the answers are given again. `patience`: seconds for which a reader waits at most. A
    server that hangs takes one thread of this process, which does not keep the process from ending.
    """

    def __init__(self, questions: Mapping[str, Callable[[], Any]], fresh: float, patience: float) -> None:
        self._questions = questions
        self._fresh, self._patience = fresh, patience
        self._answers: dict[str, Any] = {}
        self._rounds: Coalescer[str, None] = Coalescer(self._ask_all)
        self._until = 0.0

    async def read(self) -> dict[str, Any]:
        """The answer to each question, `fresh` seconds old at most; None where there is none."""
        if asyncio.get_running_loop().time() >= self._until:
            # wait() does not cancel the round with its reader. Answers that came by the end of his patience are shown.
            await asyncio.wait([self._rounds.ask("all")], timeout=self._patience)
        return dict(self._answers)

    async def _ask_all(self, keys: list[str]) -> dict[str, None]:
        loop = asyncio.get_running_loop()
        self._answers = dict.fromkeys(self._questions)
        answered = asyncio.Event()
        done = (self._answers, loop, answered.set)
        # A thread of its own, which does not keep the process from ending while a server hangs.
        threading.Thread(target=self._ask, args=done, name="sources", daemon=True).start()
        await answered.wait()
        self._until = loop.time() + self._fresh
        return dict.fromkeys(keys)

    def _ask(self, answers: dict[str, Any], loop: asyncio.AbstractEventLoop, done: Callable[[], object]) -> None:
        for name, ask in self._questions.items():
            try:
                answers[name] = ask()
            except Exception as error:
                # Whatever one question fails with, the answers to the others are shown.
                if db.is_transient(error) or isinstance(error, redis.RedisError):
                    log.warning("figures_missing", source=name, error=type(error).__name__)
                else:
                    log.exception("figures_missing", source=name)
        with suppress(RuntimeError):  # the loop has gone meanwhile
            loop.call_soon_threadsafe(done)
