"""What the routes share: this process's submission, its keys and limits, and the database off the event loop."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Depends, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from api.http import authentication, reading, turns
from api.http.authentication import KeyRing
from api.http.cursors import Seal
from api.http.lag import Lag
from api.http.limits import RateLimits
from api.http.refusals import Unauthenticated
from api.http.request_id import HEADERS
from api.http.shares import Pace, Shares
from api.http.turns import FairThreads, Turns
from api.job_waiting import JobWaiting
from api.submission.submission import Submission
from shared.broker import doorbells, queue
from shared.domain import fields
from shared.domain.errors import RateLimited, RedraftError, Unavailable
from shared.settings import Settings
from shared.store import db
from shared.store import secrets as secrets_store
from shared.store.db import transaction
from shared.store.keys import Key

T = TypeVar("T")

READERS = 4
WRITERS = 3
PARSERS = 2
PARSED_AT_MOST = 16
"""Bodies of jobs, of 2 MiB at most, that are parsed or wait to be parsed."""

LARGE_BODIES_KIB = 32 * 1024
"""KiB of bodies with many edits, from their arrival until their edits are recorded (docs/fairness.md)."""

RINGS_AT_MOST = 100
"""Calls of `Context.ring` that wait for Redis, or are under way."""

REFUSALS_A_SECOND = 100
HELD_BACK_AT_MOST = 5.0
"""REFUSALS_A_SECOND of each key, and of all requests without a key together, are answered at once; others up to
HELD_BACK_AT_MOST seconds later. So a client that repeats refused requests without a pause costs next to nothing.
"""


log = structlog.get_logger(__name__)


class Unsure(Unavailable):
    """503 after a COMMIT without an answer. `message` says where the client looks before it sends the request again."""

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class _GivenUpError(Exception):
    """The client's answer says that nothing was done: roll back."""


class Context:
    """One for each API process, made when it starts. Lives on the event loop."""

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.keys = KeyRing()
        self.limits = RateLimits(config.redis_url)
        self.submission = Submission(config)
        self.job_waiting = JobWaiting()
        self._turns = Turns()
        self._refusals = Pace(REFUSALS_A_SECOND, HELD_BACK_AT_MOST)
        self._readers = FairThreads(READERS, "reads")
        # Apart from the readers: a creation may wait while another process has the lock of its Idempotency-Key.
        self._writers = FairThreads(WRITERS, "writes")
        # Apart from all others: one of these bodies may take a third of a second of a thread.
        self._parsers = FairThreads(PARSERS, "parses")
        self._parsing = Shares(PARSED_AT_MOST)
        self.large_bodies = Shares(LARGE_BODIES_KIB)
        self._bells = ThreadPoolExecutor(1, thread_name_prefix="bells")
        self._seal: Seal | None = None
        self._ringing = 0
        self.lag = Lag()
        self.lag.start()

    async def authenticated(self, request: Request, scope: str) -> Key:
        """The request's key, which has `scope` and is within its rate limit. Waits for the workspace's turn.

        Routes depend on this first: a refusal costs the least here, and a flood of refusals is held back. Raises
        Unauthenticated, RateLimited, Forbidden, Unavailable.
        """
        try:
            key = await authentication.authenticate(request, self.keys, self.config.database_patience)
        except Unauthenticated as error:
            raise await self.held_back("", error) from None
        turns.owner.set(key.workspace_id)
        if key.rate_limit is not None:
            usage = await self.limits.hit(key, key.rate_limit)
            request.scope[HEADERS] += usage.headers()
            if not usage.allowed:
                raise await self.held_back(key.id, RateLimited(usage.reset))
        if (turn := self._turns.turn(key.workspace_id)) is not None:
            await turn
        return authentication.demand(key, scope)

    async def held_back(self, owner: str, error: RedraftError) -> RedraftError:
        """Returns the refusal: at once for an owner's first ones of a second, later for more of them."""
        seconds = self._refusals.hold(owner, asyncio.get_running_loop().time())
        if seconds:
            await asyncio.sleep(seconds)
        return error

    async def seal(self) -> Seal:
        """The seal of lists' cursors, the same in all processes."""
        if self._seal is None:
            self._seal = Seal(await self.read(secrets_store.secret, secrets_store.CURSORS))
        return self._seal

    async def read(self, query: Callable[..., T], *args: object) -> T:
        """`query(tx, *args)` in a transaction, in a thread. Unavailable when PostgreSQL is out of reach for 2 s."""

        def run() -> T:
            with transaction() as tx:
                return query(tx, *args)

        try:
            async with asyncio.timeout(self.config.database_patience):
                return await self._readers.run(run)
        except Exception as error:
            # A failure that passes is for the client to repeat; anything else is a bug.
            if db.is_transient(error):
                raise Unavailable from error
            raise

    async def write(self, work: Callable[..., T], *args: object, unsure: str) -> T:
        """`work(tx, *args)` in a transaction, in a thread; committed when this returns.

        Raises Unavailable when nothing was done and nothing will be. Raises Unsure with the message `unsure` when the
        commit may have happened.
        """
        # Taken once and never given back. Either the answer says that nothing was done, or the commit goes ahead.
        decided = threading.Lock()

        def run() -> T:
            with transaction() as tx:
                result = work(tx, *args)
                if not decided.acquire(blocking=False):
                    raise _GivenUpError
            return result

        try:
            async with asyncio.timeout(self.config.database_patience):
                return await self._writers.run(run)
        except Exception as error:
            # As for reads. After a connection that was lost in COMMIT, the commit may have happened.
            if not db.is_transient(error):
                raise
            raise Unavailable if decided.acquire(blocking=False) else Unsure(unsure) from error

    async def parse(self, work: Callable[..., T], *args: object) -> T:
        """`work(*args)`, which parses a large body, in a thread. Unavailable where too many bodies wait."""
        whose = turns.owner.get()
        if not self._parsing.admits(whose):
            raise Unavailable
        self._parsing.take(whose)
        parsed = self._parsers.run(lambda: work(*args))
        # The place is taken until the thread is done, even if the client is gone by then.
        parsed.add_done_callback(partial(self._parsed, whose))
        return await asyncio.shield(parsed)

    def parse_placed(self, work: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """`work(*args)` in such a thread, for a body that has its place in `large_bodies`."""
        return self._parsers.run(lambda: work(*args))

    def _parsed(self, whose: str, parsed: asyncio.Future[Any]) -> None:
        self._parsing.give_back(whose)
        if not parsed.cancelled():
            parsed.exception()  # marks it as read: asyncio would report it if the client is gone

    def ring(
        self,
        *,
        edits: Sequence[str] = (),
        publishes: Sequence[tuple[str, int, datetime | None]] = (),
        renders: Sequence[tuple[str, int]] = (),
        webhooks: Sequence[str] = (),
        job_id: str | None = None,
    ) -> None:
        """Ring for what a commit left to do, in a thread, without waiting for it. Call it below the commit.

        `edits` and `webhooks` are ids of posts; `publishes` and `renders` are those of `queue.enqueue_publish` and
        `queue.enqueue_renders`; `job_id` is a bulk job's. Over RINGS_AT_MOST calls that wait for Redis nothing is rung:
        rescue finds it. Doorbells of recorded edits go another way: they ask for an answer
        (api/submission/doorbell.py).
        """
        if not (edits or publishes or renders or webhooks or job_id):
            return

        def ring_all() -> None:
            doorbells.ring(edits)
            queue.enqueue_publish(publishes)
            queue.enqueue_renders(renders)
            queue.ring_webhooks(webhooks)
            if job_id is not None:
                queue.ring_reschedule(job_id)

        if self._ringing >= RINGS_AT_MOST:
            log.warning("ring_dropped", waiting=self._ringing)
            return
        self._ringing += 1
        rung = asyncio.get_running_loop().run_in_executor(self._bells, ring_all)
        rung.add_done_callback(self._rung)

    def _rung(self, rung: asyncio.Future[None]) -> None:
        self._ringing -= 1
        if not rung.cancelled() and rung.exception() is not None:
            log.warning("ring_failed", error=type(rung.exception()).__name__)

    def shorten_waits(self) -> None:
        """Before the process ends: what requests wait for goes on without them."""
        self.submission.waiting.shorten_waits()
        self.job_waiting.answer_all()

    async def close(self) -> None:
        self.lag.stop()
        await self.submission.close()
        await self.job_waiting.close()
        self.keys.close()
        await self.limits.close()
        self._parsers.close()
        self._bells.shutdown(wait=False)
        self._writers.close()
        self._readers.close()


def context_of(request: Request) -> Context:
    """The process's context."""
    context: Context = request.app.state.context
    return context


async def _here(request: Request) -> Context:
    return context_of(request)


class KeyWith(SecurityBase):
    """A dependency: the request's key, which has the scope and is within its limits. Routes name it before all else."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        # What FastAPI documents.
        self.scheme_name = "key"
        self.model = HTTPBearer(description="An API key: `redraft keys create`")

    async def __call__(self, request: Request) -> Key:
        key = await context_of(request).authenticated(request, self.scope)
        reading.check_number_of_parameters(request)
        return key


# Coroutines both, since FastAPI runs a plain function in a thread.
Here = Annotated[Context, Depends(_here)]
Reader = Annotated[Key, Security(KeyWith(authentication.READ), scopes=[authentication.READ])]
Writer = Annotated[Key, Security(KeyWith(authentication.WRITE), scopes=[authentication.WRITE])]
Mover = Annotated[Key, Security(KeyWith(authentication.BULK), scopes=[authentication.BULK])]


def storable(text: str) -> bool:
    """Whether a row can have this id at all. An id that no row can have is answered as not found."""
    return len(text) <= 255 and fields.is_clean(text)
