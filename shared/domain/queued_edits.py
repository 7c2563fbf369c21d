"""An edit in the queue as the worker reads it, and how it ended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.domain.lifecycle import EditStatus


@dataclass(frozen=True, slots=True)
class QueuedEdit:
    """An edit as the worker reads it. `attempts` counts the times that somebody started it and died, `deferrals` those
    that its batch failed at PostgreSQL. `size`: the bytes of what it brings.

    `read_at` is the database's clock as this was read: what is due is judged by it.
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


@dataclass(frozen=True, slots=True)
class EditResult:
    """How an edit ended. `revision` is the post's as the edit left it, or, refused, as it found it."""

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
