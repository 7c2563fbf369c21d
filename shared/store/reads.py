"""What clients read: one post, one edit. Lists and the audit trail page by keyset (SPEC 4)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from shared.posts import Post
from shared.store.posts import COLUMNS, post_of

_POST = text(f"SELECT {COLUMNS} FROM posts WHERE id = :id AND workspace_id = :workspace AND deleted_at IS NULL")


def post(tx: Connection, workspace_id: str, post_id: str) -> Post | None:
    """A workspace's post, unless it was deleted."""
    row = tx.execute(_POST, {"id": post_id, "workspace": workspace_id}).one_or_none()
    return post_of(row) if row else None


@dataclass(frozen=True, slots=True)
class EditRecord:
    """An edit as its row tells it: the resource of GET /v1/edits/{editId}."""

    id: str
    post_id: str
    status: str
    changes: dict[str, Any]
    created_at: datetime
    finalized_at: datetime | None
    attempts: int
    revision: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    error_details: list[dict[str, str]] | None
    requested_by: str
    seq: int


EDIT_COLUMNS = """id, post_id, status, changes, created_at, finalized_at, attempts, revision, before, after, error_code,
    error_message, error_details, requested_by, seq"""

_EDIT = text(f"SELECT {EDIT_COLUMNS} FROM edits WHERE id = :id AND workspace_id = :workspace")


def edit(tx: Connection, workspace_id: str, edit_id: str) -> EditRecord | None:
    """A workspace's edit."""
    row = tx.execute(_EDIT, {"id": edit_id, "workspace": workspace_id}).one_or_none()
    return EditRecord(*row) if row else None
