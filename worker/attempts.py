"""Attempts at queued edits: counted before work begins, given back by whatever ends it short of a death."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from shared.domain.queued_edits import QueuedEdit
from shared.store import StaleWriteError, db
from shared.store import edits as edits_store
from shared.store.edits import Owed

log = structlog.get_logger(__name__)


class Attempts:
    """The attempts that a piece of work has counted. Left by anything but success, they are given back.

    Only a death keeps them, a kill at the hard limit included, and a surprise in our own code: an edit that raises is
    as poisonous as one that kills, and run alone it will be `failed` after its last attempt. Work that PostgreSQL ends
    for its own sake (too long, too large) is deferred: its edits remember it, and run with fewer others the next time
    (worker/batch_limits.py). `alone`: they run by themselves already, so that it is theirs, and costs the attempt.
    """

    # Deliberately the process's: PostgreSQL was away when it was due.
    _owed: list[Owed] = []  # noqa: RUF012
    # A publish worker works in many threads: what one is giving back, another must not give back again.
    _giving_back = threading.Lock()

    def __init__(self, *, alone: bool = False) -> None:
        self._counted: list[QueuedEdit] = []
        self._alone = alone

    def count(self, edits: Sequence[QueuedEdit]) -> Sequence[QueuedEdit]:
        """Write down that work on these edits begins, before it does. Their posts are locked by the caller.

        Returned: those that it begins on. Left out: of each post, all from the first whose row somebody else has locked
        (a person; nobody of ours who has not the post).
        """
        try:
            self._count(edits)
        except Exception as error:
            if not db.lock_timed_out(error):
                raise
            edits = self._free(edits)
            self._count(edits)
        return edits

    def _count(self, edits: Sequence[QueuedEdit]) -> None:
        if edits:
            # Before it is done: whether it was may be lost with the connection, and giving back looks which it was.
            self._counted += edits
            with db.autocommit_relaxed() as relaxed:
                edits_store.count_attempts(relaxed, [edit.id for edit in edits])

    @staticmethod
    def _free(edits: Sequence[QueuedEdit]) -> list[QueuedEdit]:
        with db.autocommit_relaxed() as relaxed:
            free = edits_store.free(relaxed, [edit.id for edit in edits])
        behind: set[str] = set()
        begun = []
        for edit in edits:
            if edit.id in free and edit.post_id not in behind:
                begun.append(edit)
            else:
                behind.add(edit.post_id)
        return begun

    def __enter__(self) -> Self:
        self.give_back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            return
        stale = isinstance(error, StaleWriteError)
        if isinstance(error, Exception) and not db.is_transient(error) and not stale:
            return
        repeats = stale or db.repeats(error)
        if repeats and self._alone:
            log.warning("attempt_spent", edits=[edit.id for edit in self._counted], error=type(error).__name__)
            return
        self._owed.extend(Owed(edit.id, edit.attempts, repeats) for edit in self._counted)
        self.give_back()

    @classmethod
    def give_back(cls) -> None:
        """Give back what is owed. PostgreSQL away: it stays owed, and the next task of this process gives it back."""
        if not cls._owed:
            return
        with cls._giving_back:
            owed = list(cls._owed)
            try:
                if owed:
                    cls._give_back(owed)
            except Exception as error:  # noqa: BLE001  -- a debt must not hide the error that made it; it is kept
                log.warning("attempts_owed", edits=len(owed), error=type(error).__name__)
                return
            del cls._owed[: len(owed)]

    @classmethod
    def _give_back(cls, owed: Sequence[Owed]) -> None:
        with db.autocommit_relaxed() as relaxed:
            locked = edits_store.give_back_attempts(relaxed, owed)
        cls._owed += [one for one in owed if one.edit_id in locked]
