"""New ids: a prefix and 26 characters that sort by time, so that an index grows at its end. Pure but for the kernel's
random bytes.
"""

import os
import threading
import time
from typing import TypeGuard

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_RANDOM_BITS = 82
_ID_BYTES = 11


class _Entropy(threading.local):
    """Random bytes, read by the page: a system call for each id would release the GIL in the middle of a request."""

    page = b""
    at = 0

    def take(self) -> int:
        if self.at >= len(self.page):
            self.page, self.at = os.urandom(_ID_BYTES * 256), 0
        self.at += _ID_BYTES
        return int.from_bytes(self.page[self.at - _ID_BYTES : self.at]) >> 6


_entropy = _Entropy()


def new_id(prefix: str, now: float | None = None) -> str:
    """`edit_01k…`: 48 bits of milliseconds, 82 random bits, in Crockford's base 32. Unique, and not to be guessed."""
    return _spelt(prefix, time.time() if now is None else now, _entropy.take())


def first_id(prefix: str, now: float) -> str:
    """The lowest id that `new_id` could make at that time. Ids that sort after it were made later."""
    return _spelt(prefix, now, 0)


def is_id(given: object) -> TypeGuard[str]:
    """Whether a value may go into a query. PostgreSQL fails a whole statement for a NUL or a lone surrogate."""
    return isinstance(given, str) and 0 < len(given) <= 255 and given.isprintable()


def _spelt(prefix: str, now: float, tail: int) -> str:
    number = (int(now * 1000) << _RANDOM_BITS) | tail
    return prefix + "_" + "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])
