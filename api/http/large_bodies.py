"""The memory that bodies with many edits take, shared by workspaces (docs/fairness.md)."""

from collections.abc import Iterator
from contextlib import contextmanager

from api.http import turns
from api.http.shares import Shares
from shared.domain.errors import Unavailable

KIB_AT_MOST = 32 * 1024
"""KiB of bodies, from their arrival until their edits are recorded."""


class LargeBodies:
    """The places of one process. Lives on the event loop."""

    def __init__(self) -> None:
        self._places = Shares(KIB_AT_MOST)

    @contextmanager
    def place_for(self, size: int) -> Iterator[None]:
        """A place for a body of that many bytes. Unavailable where the workspace of this request has its share."""
        whose, kib = turns.owner.get(), -(-size // 1024)
        if not self._places.admits(whose):
            raise Unavailable
        self._places.take(whose, kib)
        try:
            yield
        finally:
            self._places.give_back(whose, kib)
