"""What operators and clients did to an edit, a post or a job that was final: who, when, from which state, and what it
overwrote. An act's row is written in the transaction of the act, so that no overwritten value is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain import histories

RETRY: Final = "retry"
RETRY_NOT_SENT: Final = "retry_not_sent"
"""A retry whose operator says that the earlier request had no effect."""
WENT_OUT: Final = "went_out"
"""A publisher's answer that came after its post had failed for want of it. Redraft itself is the actor."""
TRY_NOW: Final = "try_now"
"""The wait for a post's next try was ended."""
REQUEUE: Final = "requeue"
DISCARD: Final = "discard"
RESEND: Final = "resend"
CANCEL: Final = "cancel"
REVERT: Final = "revert"
UNDO: Final = "undo"
"""A client had an applied edit undone by a new one."""
HOLD: Final = "hold"
RESUME: Final = "resume"
PUBLISH: Final = "publish"
"""An operator let a post that waits go out now."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it: an operator by name, or an API client by its key's name and id, and the request that asked."""

    name: str
    api_key_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One act on one thing. `subject`: what kind of thing it is (`post`, `edit`, `job`, `webhook`). `before`: what it
    overwrites, by the names that people see; times as RFC 3339.
    """

    action: str
    subject: str
    subject_id: str
    workspace_id: str
    from_state: str
    before: dict[str, Any]


_RECORD = text("""
    INSERT INTO acts (actor, api_key_id, request_id, action, subject, subject_id, workspace_id, from_state, before)
    SELECT :actor, :api_key_id, :request_id, r.action, r.subject, r.subject_id, r.workspace_id, r.from_state, r.before
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        action text, subject text, subject_id text, workspace_id text, from_state text, before jsonb)""")


def record(tx: Connection, actor: Actor, acts: Sequence[Act]) -> None:
    """Write acts down, in the transaction that carries them out."""
    if acts:
        given = {"actor": actor.name, "api_key_id": actor.api_key_id, "request_id": actor.request_id}
        tx.execute(_RECORD, given | {"rows": to_json(acts).decode()})


@dataclass(frozen=True, slots=True)
class Recorded:
    """An act as its row has it."""

    at: datetime
    actor: str
    by_client: bool
    action: str
    from_state: str
    before: dict[str, Any]

    def words(self) -> str:
        """The act in a sentence."""
        return histories.words(self.action, self.actor, self.from_state, self.before)

    def as_json(self) -> dict[str, Any]:
        """The act as `--json` shows it."""
        return histories.as_json(self.at, self.action, self.actor, self.from_state, self.before)


_OF = text("""
    SELECT at, actor, api_key_id IS NOT NULL, action, from_state, before FROM acts
    WHERE subject_id = :id ORDER BY id DESC LIMIT :limit""")


def of(tx: Connection, subject_id: str, limit: int) -> list[Recorded]:
    """The latest acts on a thing, newest first (ix_acts_subject)."""
    return [Recorded(*row) for row in tx.execute(_OF, {"id": subject_id, "limit": limit})]
