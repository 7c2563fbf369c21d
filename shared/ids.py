"""New ids: a prefix and 26 characters that sort by time, so that an index grows at its end. Pure."""

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 82


def new_id(prefix: str, now: float | None = None) -> str:
    """`edit_01k…`: 48 bits of milliseconds, 82 random bits, in Crockford's base 32. Unique, and not to be guessed."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    number = (milliseconds << _RANDOM_BITS) | (int.from_bytes(os.urandom(11)) >> 6)
    return prefix + "_" + "".join([_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)])
