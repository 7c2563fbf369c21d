"""Cursors of lists: encrypted, so that they disclose nothing, and authenticated, so that no client can make one.

A cursor holds the place where the next page begins. A place may hold what clients must not learn: an edit's place is
its number among the edits of all workspaces. The scheme is that of SIV (RFC 5297): a keyed hash of the place, and of
what the cursor is bound to, is both the check and the nonce. Lengths are rounded up, since the length of a number
discloses its size.
"""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, shake_256
from hmac import compare_digest
from typing import Any, Final

from pydantic_core import from_json, to_json

Place = tuple[Any, ...]

CURSOR_MAX: Final = 1024
_TAG_BYTES: Final = 16
_BLOCK: Final = 96
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Seal:
    """Makes cursors, and opens those that it made. `key`: 32 random bytes that all API processes share."""

    def __init__(self, key: bytes) -> None:
        self._tags = blake2b(b"tag", key=key).digest()
        self._streams = blake2b(b"stream", key=key).digest()

    def close(self, place: Place, bound_to: bytes) -> str:
        """The cursor of a place, valid only with the same `bound_to`."""
        plain = [{"t": (value - _EPOCH) // _MICROSECOND} if isinstance(value, datetime) else value for value in place]
        data = to_json(plain)
        # Padding by blanks: JSON may end in them.
        data = data.ljust(-(-len(data) // _BLOCK) * _BLOCK)
        tag = self._tag(data, bound_to)
        return _written(tag + self._masked(data, tag))

    def open(self, text: str, bound_to: bytes, kinds: Sequence[type]) -> Place | None:
        """The place of a cursor, whose values have the types `kinds`. None for a cursor that `close` did not make, or
        made for another `bound_to`.
        """
        if len(text) > CURSOR_MAX:
            return None
        try:
            raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        tag = raw[:_TAG_BYTES]
        data = self._masked(raw[_TAG_BYTES:], tag)
        if not compare_digest(tag, self._tag(data, bound_to)) or _written(raw) != text:
            return None
        place = tuple(
            _EPOCH + value["t"] * _MICROSECOND if isinstance(value, dict) else value for value in from_json(data)
        )
        return place if [type(value) for value in place] == list(kinds) else None

    def _tag(self, data: bytes, bound_to: bytes) -> bytes:
        return blake2b(len(bound_to).to_bytes(4) + bound_to + data, digest_size=_TAG_BYTES, key=self._tags).digest()

    def _masked(self, data: bytes, tag: bytes) -> bytes:
        stream = shake_256(self._streams + tag).digest(len(data))
        return bytes(one ^ other for one, other in zip(data, stream, strict=True))


def _written(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
