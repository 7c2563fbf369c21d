"""The memory that bodies with many edits take, shared by workspaces (docs/fairness.md)."""

from collections.abc import Iterator
from contextlib import contextmanager

from api.http.shares import Shares

KIB_AT_MOST = 32 * 1024
"""KiB of bodies, from their arrival until their edits are recorded."""


class LargeBodies:
    """The places of one process. Lives on the event loop."""

    def __init__(self) -> None:
        self._places = Shares(KIB_AT_MOST)

    def admits(self, owner: str) -> bool:
        """Whether this workspace may have one more body in hand."""
        return self._places.admits(owner)

    @contextmanager
    def place_for(self, owner: str, size: int) -> Iterator[None]:
        """Places for a body of that many bytes. Ask `admits` before."""
        kib = -(-size // 1024)
        self._places.take(owner, kib)
        try:
            yield
        finally:
            self._places.give_back(owner, kib)
