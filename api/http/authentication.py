"""API keys: finding a request's key, and checking its scope (docs/security.md)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from starlette.requests import Request

from api.http.coalescer import Coalescer
from api.http.refusals import Expired, Forbidden, Unauthenticated
from shared.domain.errors import Unavailable
from shared.store import db
from shared.store import keys as keys_store
from shared.store.db import autocommit, transaction
from shared.store.keys import Found, Key

# A revoked key stops working within a second. What is remembered may be half a second old, and a look-up may take the
# other half.
FRESH = 0.5
REMEMBERED_AT_MOST = 10_000
ASKED_AT_ONCE = 256

USES_GATHER = 1.0
"""Seconds between two writes of last uses. The keys that are used meanwhile are written together."""
USES_REST = 10.0
"""Seconds without such a write after one that failed."""

READ, WRITE, BULK = "posts:read", "posts:write", "bulk"

log = structlog.get_logger(__name__)


class KeyRing:
    """The keys that sent requests recently. Lives on the event loop; many look-ups at once are one query.

    Keys that were valid at their last request are looked up before all others. So a flood of invalid secrets delays
    only clients that come for the first time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Two threads: no look-up waits for a last use that is written.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("keys", "key-uses")]
        self._good: dict[bytes, tuple[Found, float]] = {}
        self._refused: dict[bytes, tuple[Found | None, float]] = {}
        self._look_ups: Coalescer[bytes, Found | None] = Coalescer(self._look_up, ASKED_AT_ONCE)
        self._uses: Coalescer[str, None] = Coalescer(self._write_uses, ASKED_AT_ONCE)

    async def find(self, secret: str, patience: float) -> Found | None:
        """The key with this secret, half a second old at most; None for an unknown or revoked one. It may be expired.

        A key is never remembered past its end. Unavailable when PostgreSQL does not answer within `patience` seconds.

        The index holds SHA-256 hashes of secrets: the time of a look-up says nothing about how near a guess was.
        """
        digest = keys_store.hash_of(secret)
        now = self._loop.time()
        known = self._good.get(digest) or self._refused.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._look_ups.ask(digest, urgent=digest in self._good))
        except Exception as error:
            # The next request asks again: an old answer lets no request in.
            if db.is_transient(error):
                raise Unavailable from error
            raise

    async def _look_up(self, digests: list[bytes]) -> dict[bytes, Found | None]:
        # The seconds that a key has left count from before the query. So it is forgotten before its end, never after.
        asked = self._loop.time()
        found = await self._loop.run_in_executor(self._threads[0], _find, digests)
        for remembered in (self._good, self._refused):
            if len(remembered) > REMEMBERED_AT_MOST:
                remembered.clear()
        until = self._loop.time() + FRESH
        for digest in digests:
            one = found.get(digest)
            self._good.pop(digest, None)
            self._refused.pop(digest, None)
            if one is None or one.expired:
                self._refused[digest] = (one, until)
                continue
            ends = until if one.seconds_left is None else min(until, asked + one.seconds_left)
            self._good[digest] = (one, ends)
            if one.use_is_old:
                self._uses.ask(one.key.id)
        return {digest: found.get(digest) for digest in digests}

    async def _write_uses(self, key_ids: list[str]) -> dict[str, None]:
        """Write that these keys are used. Requests do not wait for it, and a use that it misses is written later."""
        rest = USES_GATHER
        try:
            await self._loop.run_in_executor(self._threads[1], _write, key_ids)
        except Exception as error:  # noqa: BLE001  -- a list of keys may show an older use; no request may suffer from it
            log.warning("last_use_not_written", error=type(error).__name__)
            rest = USES_REST
        await asyncio.sleep(rest)
        return dict.fromkeys(key_ids)

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False)


def _find(digests: list[bytes]) -> dict[bytes, Found]:
    with transaction() as tx:
        return keys_store.find_keys(tx, digests)


def _write(key_ids: list[str]) -> None:
    with autocommit() as tx:
        keys_store.write_use(tx, key_ids)


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
    """The request's key. Raises Unauthenticated, the same for an unknown and a revoked key, and Expired."""
    header = request.headers.get("authorization")
    scheme, _, secret = (header or "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(no_key_in(header, elsewhere="x-api-key" in request.headers))
    found = await ring.find(secret, patience)
    if found is None:
        raise Unauthenticated
    if found.expired and found.expires_at is not None:
        raise Expired(found.expires_at)
    return found.key


def demand(key: Key, scope: str) -> Key:
    """The key, if it has the scope. Raises Forbidden otherwise."""
    if scope not in key.scopes:
        raise Forbidden(scope)
    return key
