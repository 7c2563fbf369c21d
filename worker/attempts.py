"""Attempts at queued edits: counted before work begins, given back by whatever ends it short of a death."""

import threading
from types import TracebackType
from typing import Self

import structlog

from shared import db
from shared.store import StaleWriteError
from shared.store import edits as edits_store

log = structlog.get_logger(__name__)


class Attempts:
    """The attempts that a piece of work has counted. Left by anything but success, they are given back.

    Only a death keeps them, a kill at the hard limit included, and a surprise in our own code: an edit that raises is
    as poisonous as one that kills, and run alone it will be `failed` after its last attempt. Work that PostgreSQL ends
    for its own sake (too long, too large) is deferred: its edits remember it, and run with fewer others the next time
    (worker/batch_limits.py). `alone`: they run by themselves already, so that it is theirs, and costs the attempt.
    """

    _owed: list[tuple[str, bool]] = []  # noqa: RUF012  -- deliberately the process's: PostgreSQL was away when it was due
    # A publish worker works in many threads: what one is giving back, another must not give back again.
    _giving_back = threading.Lock()

    def __init__(self, *, alone: bool = False) -> None:
        self.ids: list[str] = []
        self._alone = alone

    def count(self, ids: list[str]) -> None:
        """Write down that work on these edits begins, before it does. Their posts are locked by the caller."""
        if ids:
            self.ids += ids
            with db.aside() as aside:
                edits_store.count_attempts(aside, ids)

    def __enter__(self) -> Self:
        self.give_back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            return
        stale = isinstance(error, StaleWriteError)
        if isinstance(error, Exception) and not db.passing(error) and not stale:
            return
        repeats = stale or db.repeats(error)
        if repeats and self._alone:
            log.warning("attempt_spent", edits=self.ids, error=type(error).__name__)
            return
        self._owed.extend((edit_id, repeats) for edit_id in self.ids)
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
                    with db.aside() as aside:
                        edits_store.give_back_attempts(aside, owed)
            except Exception as error:  # noqa: BLE001  -- a debt must not hide the error that made it; it is kept
                log.warning("attempts_owed", edits=len(owed), error=type(error).__name__)
                return
            del cls._owed[: len(owed)]
