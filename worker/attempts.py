"""Attempts: counted before work begins, and given back when an interruption stopped it that is not the work's fault."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from shared.domain.queued_edits import QueuedEdit
from shared.settings import settings
from shared.store import StaleWriteError, db
from shared.store import edits as edits_store
from shared.store import reschedule_chunks as chunks_store
from shared.store.edits import Owed
from shared.telemetry import logs

log = structlog.get_logger(__name__)

NAMED = 10
"""Edits that one line of the log names."""


class GiveUpError(Exception):
    """The work stopped its worker again and again."""


class Attempts(ABC):
    """The attempts that a piece of work has counted.

    An attempt stays counted where the worker dies, a kill at the hard limit included, and where our own code raises a
    surprise: work that raises each time is as poisonous as work that kills each time. `_interrupted` decides about all
    other errors.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not db.is_transient(error) and not isinstance(error, StaleWriteError):
            self._surprised(error)
        elif error is not None:
            self._interrupted(error)

    def _surprised(self, error: Exception) -> None:  # noqa: B027  -- most have nothing to do
        """Our own code raised: the attempt stays counted."""

    @abstractmethod
    def _interrupted(self, error: BaseException) -> None:
        """PostgreSQL stopped the work, or a row had changed meanwhile, or the process is ending."""


class EditAttempts(Attempts):
    """Attempts at queued edits.

    Work that is `on_record` outside this process (shared/broker/hands.py) is not counted before it begins: after a
    death the record is found, and the attempt counted then. Only an edit that was tried before is counted here.

    Work that PostgreSQL stops for its length or its size is deferred: its edits remember it and run with fewer others
    the next time (worker/batch_limits.py). An `isolated` edit runs by itself already: it is the cause, and this costs
    it the attempt.
    """

    # Shared by the process on purpose: PostgreSQL was away when these were to be given back.
    _owed: list[Owed] = []  # noqa: RUF012
    # A publish worker has many threads: an attempt must be given back by one of them only.
    _giving_back = threading.Lock()

    def __init__(self, *, isolated: bool = False, on_record: bool = False) -> None:
        self._begun: list[QueuedEdit] = []
        self._isolated = isolated
        self._on_record = on_record

    def count(self, edits: Sequence[QueuedEdit]) -> Sequence[QueuedEdit]:
        """Write down that work on these edits begins, before it begins. The caller has locked their posts.

        Returned: the edits to work on. Left out: of each post, all from the first edit whose row is locked. Only a
        person can have locked it, since no worker locks an edit without its post.
        """
        if self._on_record:
            self._begun += edits
            return edits
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
            # Noted before the statement: its answer may be lost with the connection. Giving back looks at the row.
            self._begun += edits
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

    def _surprised(self, error: Exception) -> None:
        """Our own code raised. What was counted stays counted, and what was on record only is counted now."""
        if self._begun:
            # Without the ids, nobody who looks for a failed edit finds the fault that failed it.
            log.warning("attempt_spent", edits=[one.id for one in self._begun[:NAMED]], error=str(logs.redacted(error)))
        if not (self._on_record and self._begun):
            return
        try:
            with db.autocommit_relaxed() as relaxed:
                edits_store.count_deaths(relaxed, sorted({edit.post_id for edit in self._begun}))
        except Exception as failure:  # noqa: BLE001  -- it must not hide the surprise, which comes again
            log.warning("attempts_not_counted", edits=len(self._begun), error=type(failure).__name__)

    def _interrupted(self, error: BaseException) -> None:
        repeats = isinstance(error, StaleWriteError) or db.repeats(error)
        if repeats and self._isolated:
            log.warning("attempt_spent", edits=[edit.id for edit in self._begun], error=type(error).__name__)
            return
        if self._on_record and not repeats:
            return
        self._owed.extend(Owed(edit.id, edit.attempts, repeats) for edit in self._begun)
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
            except Exception as error:  # noqa: BLE001  -- it must not hide the error that interrupted the work
                log.warning("attempts_owed", edits=len(owed), error=type(error).__name__)
                return
            del cls._owed[: len(owed)]

    @classmethod
    def _give_back(cls, owed: Sequence[Owed]) -> None:
        with db.autocommit_relaxed() as relaxed:
            locked = edits_store.give_back_attempts(relaxed, owed)
        cls._owed += [one for one in owed if one.edit_id in locked]


class ChunkAttempts(Attempts):
    """The attempt at one chunk of a bulk job, or at its freeze."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._begun: tuple[int, int] | None = None
        self._posts: Sequence[str] = ()

    def count(self, number: int, before: int, posts: Sequence[str] = ()) -> None:
        """Write down that work on chunk `number` begins, after `before` attempts. `posts`: those that it is about, in
        id order; none for a freeze.

        Raises GiveUpError where this attempt is one too many, with words that name these posts.
        """
        self._posts = posts
        # Noted before the statement: its answer may be lost with the connection. Giving back looks at the row.
        self._begun = number, before
        with db.autocommit_relaxed() as relaxed:
            attempts = chunks_store.count_attempt(relaxed, self._job_id, number)
        if attempts > (most := settings().edit_attempts):
            raise GiveUpError(_gave_up(most, posts))

    def _surprised(self, error: Exception) -> None:
        """Without the job's id, nobody who looks for a failed job finds the fault that failed it."""
        if self._begun is not None and not isinstance(error, GiveUpError):
            self._say_spent(str(logs.redacted(error)))

    def _say_spent(self, error: str) -> None:
        ends = {"first": self._posts[0], "last": self._posts[-1]} if self._posts else {}
        log.warning("attempt_spent", reschedule_id=self._job_id, posts=len(self._posts), error=error, **ends)

    def _interrupted(self, error: BaseException) -> None:
        # A chunk that PostgreSQL stops for its length or its size would be stopped each time: it keeps the attempt.
        if self._begun is None:
            return
        if db.repeats(error):
            self._say_spent(type(error).__name__)
            return
        try:
            with db.autocommit_relaxed() as relaxed:
                chunks_store.give_back_attempt(relaxed, self._job_id, *self._begun)
        except Exception as failure:  # noqa: BLE001  -- it must not hide `error`, and the chunk has attempts left
            log.warning("attempt_not_given_back", reschedule_id=self._job_id, error=type(failure).__name__)


def _gave_up(attempts: int, posts: Sequence[str]) -> str:
    """Why a job failed, for its client and for operators: `Gave up after 5 attempts at 126 posts, …`."""
    if not posts:
        at = "to find its posts"
    else:
        at = f"at {posts[0]}" if len(posts) == 1 else f"at {len(posts):,} posts, from {posts[0]} to {posts[-1]}"
    return f"Gave up after {attempts} attempts {at}: each one stopped its worker or failed in it"
