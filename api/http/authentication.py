"""Who asks: API keys, their scopes, and what they may see (SPEC 4, 9)."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request

from shared.domain.errors import Forbidden, Unauthenticated, Unavailable
from shared.store import db
from shared.store import keys as keys_store
from shared.store.db import transaction
from shared.store.keys import Key

# A revoked key stops working within a second: half of it for the age of what is remembered, half for the look-up.
FRESH = 0.5
REMEMBERED_AT_MOST = 10_000
ASKED_AT_ONCE = 256

READ, WRITE, BULK = "posts:read", "posts:write", "bulk"


class KeyRing:
    """The keys that asked lately. Lives on the event loop; many look-ups at once are one query.

    Keys that were good when they last asked are looked up before all others: a flood of secrets that are nobody's
    delays only those who come for the first time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._good: dict[bytes, tuple[Key, float]] = {}
        self._nobodys: dict[bytes, float] = {}
        self._asked: dict[bytes, asyncio.Future[Key | None]] = {}
        self._next: deque[bytes] = deque()
        self._new: deque[bytes] = deque()
        self._busy = False

    async def find(self, secret: str, patience: float) -> Key | None:
        """The key with this secret, as it was half a second ago at most; None for one unknown or revoked.

        Unavailable when PostgreSQL does not say within `patience` seconds.

        The secret is compared by its SHA-256, through an index: nothing of a near miss shows in the time it takes.
        """
        digest = keys_store.hash_of(secret)
        now = self._loop.time()
        known = self._good.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        if self._nobodys.get(digest, 0.0) > now:
            return None
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._ask(digest))
        except TimeoutError:
            raise Unavailable from None

    def _ask(self, digest: bytes) -> asyncio.Future[Key | None]:
        asked = self._asked.get(digest)
        if asked is None:
            asked = self._asked[digest] = self._loop.create_future()
            (self._next if digest in self._good else self._new).append(digest)
            self._look()
        return asked

    def _look(self) -> None:
        if self._busy or not (self._next or self._new):
            return
        self._busy = True
        wanted: list[bytes] = []
        while len(wanted) < ASKED_AT_ONCE and (self._next or self._new):
            wanted.append((self._next or self._new).popleft())
        found = self._loop.run_in_executor(self._thread, _find, wanted)
        found.add_done_callback(lambda done: self._looked(wanted, done))

    def _looked(self, wanted: list[bytes], done: asyncio.Future[dict[bytes, Key]]) -> None:
        self._busy = False
        for remembered in (self._good, self._nobodys):
            if len(remembered) > REMEMBERED_AT_MOST:
                remembered.clear()
        until = self._loop.time() + FRESH
        error = None if done.cancelled() else done.exception()
        for digest in wanted:
            future = self._asked.pop(digest)
            if error is not None:
                # Asked for again by the next request; nobody is let in on an old answer.
                if not future.done():
                    future.set_exception(Unavailable() if db.is_transient(error) else error)
                future.exception()
                continue
            key = done.result().get(digest)
            self._good.pop(digest, None)
            if key is None:
                self._nobodys[digest] = until
            else:
                self._good[digest] = (key, until)
            if not future.done():
                future.set_result(key)
        self._look()

    def close(self) -> None:
        self._thread.shutdown(wait=False)


def _find(digests: list[bytes]) -> dict[bytes, Key]:
    with transaction() as tx:
        return keys_store.find_keys(tx, digests)


async def authenticate(request: Request, ring: KeyRing, patience: float) -> Key:
    """The request's key. Unauthenticated says the same for none, a malformed, an unknown and a revoked one."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated
    key = await ring.find(secret, patience)
    if key is None:
        raise Unauthenticated
    return key


def demand(key: Key, scope: str) -> Key:
    """The key, if it has the scope; Forbidden otherwise."""
    if scope not in key.scopes:
        raise Forbidden(scope)
    return key
