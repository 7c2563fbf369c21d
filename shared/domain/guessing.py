"""Slows down password guessing without ever shutting out the right password (docs/security.md).

Only the password itself tells a guess from a login. So an attempt is never refused because of earlier wrong ones. It
waits for its verdict, whether it is right or wrong. The wait grows with the number of recent wrong attempts from its
source, and from all sources. If only the right password were answered at once, a client could try a thousand guesses a
second and hang up on each.

A client that was right once gets a pass (OWASP calls it a device cookie) and is then a source of its own. An operator
whose browser has a pass does not wait because of strangers who share the address.
"""

import asyncio
import binascii
import hmac
import secrets
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from shared.domain import addresses

FREE: Final = 5
"""Wrong passwords of one source that cost no wait: people mistype."""
FORGETS: Final = 6.0
"""Seconds after which one wrong attempt of a source is forgotten: ten a minute."""
ALL_FREE: Final = 60
ALL_FORGET: Final = 1.0
"""The same two for all sources together that were never right."""
FIRST: Final = 0.25
MOST: Final = 5.0
"""Seconds: the first wait, which doubles with each more, and the longest."""
WAITING_AT_MOST: Final = 4096
SOURCES_AT_MOST: Final = 10_000
PASS_LIVES: Final = 30 * 24 * 3600
LOG_EVERY: Final = 10.0


class Verdict(Enum):
    """The outcome of an attempt. CROWDED: too many attempts wait, it was not checked. GONE: the client left."""

    RIGHT = "right"
    WRONG = "wrong"
    CROWDED = "crowded"
    GONE = "gone"


def wait_for(level: float, free: float) -> float:
    """Seconds that an attempt waits when `level` wrong ones are remembered, itself among them, and `free` are free."""
    over = level - free
    return 0.0 if over <= 0 else float(min(MOST, FIRST * 2 ** min(over - 1, 10)))


@dataclass(slots=True)
class _Level:
    """Recent wrong passwords. One is forgotten every `forgets` seconds. The count is capped at the longest wait."""

    free: float
    forgets: float
    count: float = 0.0
    at: float = 0.0
    proven: bool = False

    def add(self, number: float, now: float) -> float:
        left = max(0.0, self.count - (now - self.at) / self.forgets)
        self.count, self.at = min(max(0.0, left + number), self.free + 6), now
        return self.count


class Guesses:
    """The attempts of one process at one password. Lives on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Level(ALL_FREE, ALL_FORGET)
        self._sources: OrderedDict[str, _Level] = OrderedDict()
        self._waiting = 0
        self._unlogged, self._logged_at = 0, float("-inf")

    async def judge(self, source: str, gone: Callable[[], Awaitable[object]], *, right: bool) -> Verdict:
        """The verdict on one attempt, after the wait that it has to take.

        `gone` returns when the client no longer waits. An attempt counts as wrong until it turns out right.
        So of a thousand attempts at once, each counts the others, and hanging up undoes nothing.
        """
        wait = self.arrives(source)
        if wait:
            if self._waiting >= WAITING_AT_MOST:
                return Verdict.CROWDED
            if await self._is_gone(wait, gone):
                return Verdict.GONE
        if right:
            self.was_right(source)
        return Verdict.RIGHT if right else Verdict.WRONG

    def arrives(self, source: str) -> float:
        """Count an attempt; the seconds that it has to wait."""
        now, level = self._clock(), self._of(source)
        wait = wait_for(level.add(1, now), FREE)
        return wait if level.proven else max(wait, wait_for(self._all.add(1, now), ALL_FREE))

    def was_right(self, source: str) -> None:
        """Take back what was counted, and let others' guesses delay this source no more."""
        now, level = self._clock(), self._of(source)
        level.add(-1, now)
        if not level.proven:
            self._all.add(-1, now)
        level.proven = True

    def worth_a_line(self) -> int:
        """How many wrong attempts the log should report now; 0 if the last report is too recent."""
        self._unlogged += 1
        now = self._clock()
        if now - self._logged_at < LOG_EVERY:
            return 0
        count, self._unlogged, self._logged_at = self._unlogged, 0, now
        return count

    def _of(self, source: str) -> _Level:
        level = self._sources.get(source)
        if level is None:
            level = self._sources[source] = _Level(FREE, FORGETS)
            if len(self._sources) > SOURCES_AT_MOST:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        return level

    async def _is_gone(self, wait: float, gone: Callable[[], Awaitable[object]]) -> bool:
        leaving = asyncio.ensure_future(gone())
        self._waiting += 1
        try:
            left, _ = await asyncio.wait({leaving}, timeout=wait)
        finally:
            self._waiting -= 1
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
        return bool(left)


class Passes:
    """Passes: what a client shows that was right once. A pass opens nothing; it only identifies a source.

    It is signed under the password, so that a new password ends all passes. All processes accept it.
    """

    def __init__(self, *secret: str) -> None:
        self._key = sha256("\0".join(("pass", *secret)).encode("utf-8", "surrogatepass")).digest()

    def new(self, now: float | None = None) -> str:
        at = int(time.time() if now is None else now)
        stem = f"{at}.{secrets.token_urlsafe(12)}"
        return f"{stem}.{self._signed(stem)}"

    def source(self, shown: str | None, address: str, now: float | None = None) -> tuple[str, bool]:
        """The source of an attempt, and whether that is a pass. Without a pass it is the address, for IPv6 its /64."""
        stem, _, signed = (shown or "").rpartition(".")
        at = stem.partition(".")[0]
        if len(stem) < 64 and at.isascii() and at.isdecimal() and signed.isascii():
            age = (time.time() if now is None else now) - int(at)
            if -60 <= age <= PASS_LIVES and hmac.compare_digest(signed, self._signed(stem)):
                return f"pass {stem}", True
        return addresses.site(address), False

    def _signed(self, stem: str) -> str:
        return hmac.new(self._key, stem.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def basic(header: str) -> tuple[str, str] | None:
    """User and password of HTTP basic (RFC 7617), or None where there are none to be read."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def same(given: str, right: str) -> bool:
    """Whether two texts are equal; takes as long for a near miss as for any other."""
    digests = (sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, right))
    return hmac.compare_digest(*digests)
