"""An edit in the queue as the worker reads it, and its result."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain.lifecycle import EditStatus


# Neither is frozen: that makes making one three times as slow, and each edit makes several. No code changes one.
@dataclass(slots=True)
class QueuedEdit:
    """An edit as the worker reads it. `attempts`: how often a worker started it and died. `deferrals`: how often
    PostgreSQL ended its batch. `size`: bytes of its changes and preconditions.

    `read_at` is the database's clock at the reading; whether the post is due is judged by it.
    """

    id: str
    seq: int
    post_id: str
    changes: dict[str, Any]
    if_match: list[str] | None
    created_at: datetime
    attempts: int
    requested_by: str
    deferrals: int
    size: int
    read_at: datetime


@dataclass(slots=True)
class EditResult:
    """The final state of an edit. `revision`: the post's after the edit; of a refused edit, the one that it found."""

    id: str
    status: EditStatus
    revision: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    result: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: list[dict[str, str]] | None = None
    lock_wait_ms: int | None = None
    was: EditStatus = EditStatus.QUEUED
