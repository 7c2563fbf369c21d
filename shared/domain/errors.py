# ruff: noqa: N818  -- an error is named for the situation: NotFound, not NotFoundError
"""The domain's errors: one class for each error of docs/api.md, with the message that the client reads.

Pure. `api/http/problems.py` turns a class into a status and headers; the worker stores `code`, `message` and `details`
in the edit's row, and `restored` makes the same error of them again for a request that still waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

InvalidCode = Literal[
    "invalid_request",
    "missing_required_fields",
    "invalid_caption",
    "invalid_scheduled_time",
    "invalid_timezone",
    "invalid_content",
    "sound_not_supported",
]
"""The codes of the 400 family. A request at fault in several ways carries the first of its codes in this order."""

_RANKS: Final = {code: rank for rank, code in enumerate(get_args(InvalidCode))}
_MOST_DETAILS: Final = 20


@dataclass(frozen=True, slots=True)
class Detail:
    """One fault. `field` is a name or path as the client wrote it (`contentUrl[3]`, `items[7].timezone`)."""

    field: str
    message: str


class RedraftError(Exception):
    """An expected failure, with what the client reads of it: `code` (docs/api.md), `message`, `details`.

    `edit_id` is set where an edit's row stands behind the error; the answer then carries Edit-Id and Location.
    """

    code: str = "internal"
    usual: ClassVar[str] = "An unexpected error occurred"
    """The message of an error of this class that says no other one."""

    def __init__(
        self, message: str | None = None, *, details: Iterable[Detail] = (), edit_id: str | None = None
    ) -> None:
        self.message = self.usual if message is None else message
        super().__init__(self.message)
        self.details = tuple(details)
        self.edit_id = edit_id

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments than Exception remembers; Celery pickles what a pool child raised.
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[RedraftError], args: tuple[object, ...], state: dict[str, object]) -> RedraftError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidRequest(RedraftError):
    """400. `code` is given for each instance; `details` names all fields at fault, first the one that gave the code."""

    def __init__(self, message: str, *, code: InvalidCode = "invalid_request", details: Iterable[Detail] = ()) -> None:
        super().__init__(message, details=details)
        self.code = code


class Faults:
    """What is wrong with a body: collected field by field, then raised as one InvalidRequest that names it all."""

    __slots__ = ("_found", "_of")

    def __init__(self) -> None:
        self._found: list[tuple[InvalidCode, Detail]] = []
        self._of: dict[InvalidCode, int] = {}

    def add(self, code: InvalidCode, name: str, message: str) -> None:
        if not self.enough_of(code):
            self._of[code] = self._of.get(code, 0) + 1
            self._found.append((code, Detail(name, message)))

    def names(self) -> set[str]:
        """The fields at fault so far."""
        return {detail.field for _, detail in self._found}

    def enough_of(self, code: InvalidCode) -> bool:
        """Whether the details are full of this code already: one more would not be shown."""
        return self._of.get(code, 0) >= _MOST_DETAILS

    def error(self) -> InvalidRequest | None:
        """None if nothing is wrong. Code and message are those of the first fault, in the order of InvalidCode and
        then of finding; of very many faults the details name the first twenty.
        """
        if not self._found:
            return None
        found = sorted(self._found, key=lambda fault: _RANKS[fault[0]])[:_MOST_DETAILS]
        code, first = found[0]
        return InvalidRequest(first.message, code=code, details=[detail for _, detail in found])

    def raise_if_any(self) -> None:
        error = self.error()
        if error is not None:
            raise error


class NotFound(RedraftError):
    """404: unknown, deleted, or of another workspace. The client cannot tell which (docs/security.md)."""

    code = "not_found"

    @classmethod
    def post(cls, post_id: str) -> "NotFound":
        return cls(f"Post {printable(post_id)} not found")

    @classmethod
    def edit(cls, edit_id: str) -> "NotFound":
        return cls(f"Edit {printable(edit_id)} not found")

    @classmethod
    def reschedule(cls, reschedule_id: str) -> "NotFound":
        return cls(f"Reschedule {printable(reschedule_id)} not found")

    @classmethod
    def account(cls, account_id: str) -> "NotFound":
        return cls(f"Account {printable(account_id)} not found")


class CannotEdit(RedraftError):
    """409: the post is `posted`, `failed` or `being published`. The details hold the label."""

    code = "cannot_edit"

    def __init__(self, label: str) -> None:
        super().__init__(
            "Only posts with status 'generated' or 'pending_render' can be edited",
            details=(Detail("status", label),),
        )

    @property
    def label(self) -> str:
        return self.details[0].message if self.details else ""


class Conflict(RedraftError):
    """409: a job's revert or cancel, a post's retry or deletion, or an edit's undo, that its state does not allow."""

    code = "conflict"


class Discarded(RedraftError):
    """An operator ended the edit (`redraft edits discard`). It was never applied."""

    code = "discarded"
    usual = "An operator discarded this edit; send it again if you still want it"


class PreconditionFailed(RedraftError):
    """412: If-Match or If-None-Match refuses the request. `revision` is the current one, for the ETag; None where the
    caller has to read the row. `message` replaces the default one, which says that the post has changed.
    """

    code = "precondition_failed"
    revision: int | None = None

    def __init__(self, revision: int | None, message: str | None = None) -> None:
        super().__init__(
            message
            or f'The post has changed: its ETag is now "{revision}"; read it again and send that tag in If-Match'
        )
        self.revision = revision


class IdempotencyKeyReused(RedraftError):
    """422: the key came before with another method, path, body or If-Match."""

    code = "idempotency_key_reused"
    usual = "This Idempotency-Key was used for another request; send a new key for a new request"


class RateLimited(RedraftError):
    """429. `retry_after` in whole seconds, at least 1."""

    code = "rate_limited"

    def __init__(self, retry_after: int, message: str | None = None) -> None:
        self.retry_after = max(1, retry_after)
        super().__init__(message or f"This API key has spent its limit; try again in {_seconds(self.retry_after)}")


class TooManyJobs(RateLimited):
    """429: as many bulk jobs of the workspace wait or run as may."""

    def __init__(self, most: int) -> None:
        super().__init__(
            5,
            f"{most} bulk jobs of this workspace wait or run already; wait until one has ended, or cancel one with"
            " POST /v1/reschedules/{id}/cancel, then send this again",
        )


UNSETTLED_SECONDS: Final = 60
"""How long an edit whose COMMIT was not confirmed may still appear. A statement on its way reaches PostgreSQL within
30 s, or TCP gives up; PostgreSQL ends the transaction 15 s later."""


class Unavailable(RedraftError):
    """503 with Retry-After (whole seconds, at least 1).

    With `edit_id` the request may have been accepted: a connection lost in COMMIT, not an ordinary outage.
    """

    code = "unavailable"

    def __init__(self, retry_after: int = 1, *, edit_id: str | None = None, message: str | None = None) -> None:
        self.retry_after = max(1, retry_after)
        usual = f"The service is unavailable; nothing was accepted, try again in {_seconds(self.retry_after)}"
        if edit_id is not None:
            usual = (
                f"The edit may have been accepted; ask GET /v1/edits/{edit_id} before you send it again. "
                f"A 404 there means nothing for the next {UNSETTLED_SECONDS} seconds"
            )
        super().__init__(message or usual, edit_id=edit_id)


class KeyInHand(Unavailable):
    """503: another request with the same Idempotency-Key is being recorded at this moment, so that there is no result
    to repeat yet.
    """

    def __init__(self) -> None:
        super().__init__(
            message="Another request with this Idempotency-Key is being recorded at this moment; "
            "send this one again in 1 second"
        )


class Internal(RedraftError):
    """500: an edit that spent its attempts, or a surprise. The request id (or edit id) is all that a client gets."""


class Restored(RedraftError):
    """An error whose code this version does not know, read from a row that another version wrote."""

    def __init__(self, code: str, message: str, details: Iterable[Detail]) -> None:
        super().__init__(message, details=details)
        self.code = code


_BY_CODE: Mapping[str, type[RedraftError]] = {
    kind.code: kind
    for kind in (NotFound, CannotEdit, Conflict, Discarded, PreconditionFailed, IdempotencyKeyReused, Internal)
} | dict.fromkeys(get_args(InvalidCode), InvalidRequest)


def restored(code: str, message: str, details: Iterable[Detail] = (), *, edit_id: str | None = None) -> RedraftError:
    """The error that a row's code, message and details once were, of the same class: never raises.

    What the three do not say (PreconditionFailed's `revision`) the caller sets again.
    """
    kind = _BY_CODE.get(code, Restored)
    error = kind.__new__(kind, message)
    RedraftError.__init__(error, message, details=details, edit_id=edit_id)
    error.code = code
    return error


def printable(text: str, limit: int = 64) -> str:
    """`text` for a message: at most `limit` characters. NUL, lone surrogates and control characters, which JSON,
    PostgreSQL or a terminal cannot take, come out as escapes.
    """
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")


def _seconds(count: int) -> str:
    return f"{count} second{'' if count == 1 else 's'}"
