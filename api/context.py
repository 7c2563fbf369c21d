"""What the routes share: this process's submission, its keys, and reading from the database off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from api import authentication
from api.authentication import KeyRing
from api.submission import Submission
from shared import db, edits
from shared.db import transaction
from shared.errors import Unavailable
from shared.settings import Settings
from shared.store.keys import Key

T = TypeVar("T")

READERS = 4


class Context:
    """One for each API process, made when it starts. Lives on the event loop."""

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.keys = KeyRing()
        self.submission = Submission(config)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reads")

    async def authenticated(self, request: Request, scope: str) -> Key:
        """The request's key, holding `scope`."""
        key = await authentication.authenticate(request, self.keys, self.config.database_patience)
        return authentication.demand(key, scope)

    async def read(self, query: Callable[..., T], *args: object) -> T:
        """`query(tx, *args)` in a transaction, in a thread. Unavailable when PostgreSQL is out of reach for 2 s."""

        def run() -> T:
            with transaction() as tx:
                return query(tx, *args)

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.config.database_patience):
                return await loop.run_in_executor(self._readers, run)
        except TimeoutError:
            raise Unavailable from None
        except Exception as error:
            # The edge: what PostgreSQL could not do for now is the client's to repeat, a bug is ours.
            if db.passing(error):
                raise Unavailable from error
            raise

    async def in_thread(self, call: Callable[[], T]) -> T:
        """A call that may block, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def close(self) -> None:
        await self.submission.close()
        self.keys.close()
        self._readers.shutdown(wait=False)


def context_of(request: Request) -> Context:
    """The process's context, by the app that serves the request."""
    context: Context = request.app.state.context
    return context


def storable(text: str) -> bool:
    """Whether an id from a path can be a row's at all; others are simply not found."""
    return len(text) <= 255 and edits.is_clean(text)
