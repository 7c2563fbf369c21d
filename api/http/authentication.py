"""API keys: finding a request's key, and checking its scope (docs/security.md)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request

from api.http.coalescer import Coalescer
from api.http.refusals import Forbidden, Unauthenticated
from shared.domain.errors import Unavailable
from shared.store import db
from shared.store import keys as keys_store
from shared.store.db import transaction
from shared.store.keys import Key

# A revoked key stops working within a second. What is remembered may be half a second old, and a look-up may take the
# other half.
FRESH = 0.5
REMEMBERED_AT_MOST = 10_000
ASKED_AT_ONCE = 256

READ, WRITE, BULK = "posts:read", "posts:write", "bulk"


class KeyRing:
    """The keys that sent requests recently. Lives on the event loop; many look-ups at once are one query.

    Keys that were valid at their last request are looked up before all others. So a flood of invalid secrets delays
    only clients that come for the first time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._good: dict[bytes, tuple[Key, float]] = {}
        self._unknown: dict[bytes, float] = {}
        self._look_ups: Coalescer[bytes, Key | None] = Coalescer(self._look_up, ASKED_AT_ONCE)

    async def find(self, secret: str, patience: float) -> Key | None:
        """The key with this secret, half a second old at most; None for an unknown or revoked one.

        Unavailable when PostgreSQL does not answer within `patience` seconds.

        The index holds SHA-256 hashes of secrets: the time of a look-up says nothing about how near a guess was.
        """
        digest = keys_store.hash_of(secret)
        now = self._loop.time()
        known = self._good.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        if self._unknown.get(digest, 0.0) > now:
            return None
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._look_ups.ask(digest, urgent=digest in self._good))
        except TimeoutError:
            raise Unavailable from None
        except Exception as error:
            # The next request asks again: an old answer lets no request in.
            if db.is_transient(error):
                raise Unavailable from error
            raise

    async def _look_up(self, digests: list[bytes]) -> dict[bytes, Key | None]:
        found = await self._loop.run_in_executor(self._thread, _find, digests)
        for remembered in (self._good, self._unknown):
            if len(remembered) > REMEMBERED_AT_MOST:
                remembered.clear()
        until = self._loop.time() + FRESH
        for digest in digests:
            key = found.get(digest)
            self._good.pop(digest, None)
            if key is None:
                self._unknown[digest] = until
            else:
                self._good[digest] = (key, until)
        return {digest: found.get(digest) for digest in digests}

    def close(self) -> None:
        self._thread.shutdown(wait=False)


def _find(digests: list[bytes]) -> dict[bytes, Key]:
    with transaction() as tx:
        return keys_store.find_keys(tx, digests)


def no_key_in(header: str | None, *, elsewhere: bool) -> str:
    """Which of the usual mistakes a request without a bearer token made, and what to send. Repeats nothing of it.

    `elsewhere`: whether it has the header X-API-Key.
    """
    send = "send Authorization: Bearer, and the key after it"
    if header is None and elsewhere:
        return f"X-API-Key is not read; {send}"
    if header is None or not header.strip():
        return f"the header is missing; {send}"
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return f"no key stands after Bearer; {send}"
    if scheme.lower() == "basic":
        return f"the scheme is Basic; {send}"
    if not rest:
        return f"the word Bearer is missing before the key; {send}"
    return f"the scheme is not Bearer; {send}"


async def authenticate(request: Request, ring: KeyRing, patience: float) -> Key:
    """The request's key. Raises Unauthenticated, the same for an unknown and a revoked key."""
    header = request.headers.get("authorization")
    scheme, _, secret = (header or "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(no_key_in(header, elsewhere="x-api-key" in request.headers))
    key = await ring.find(secret, patience)
    if key is None:
        raise Unauthenticated
    return key


def demand(key: Key, scope: str) -> Key:
    """The key, if it has the scope. Raises Forbidden otherwise."""
    if scope not in key.scopes:
        raise Forbidden(scope)
    return key
