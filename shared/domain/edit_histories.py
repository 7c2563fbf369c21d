"""An edit's history as operators read it: its times, what to do about it, what a requeue would overwrite.

Pure. The command line and the operators' page use the same sentences.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from shared.domain import lifecycle, posts
from shared.domain.edits import PLAIN, PUBLISH_NOW, EditPatch
from shared.domain.fields import UNSET
from shared.domain.lifecycle import EditStatus, PostFacts
from shared.domain.plurals import counted

# Fields that belong together in a PATCH are overwritten together.
GROUPS: Final[Mapping[str, str]] = {plain.name: plain.name for plain in PLAIN} | {
    "scheduledTime": "time",
    "timezone": "time",
    "contentType": "content",
    "contentUrl": "content",
    "soundId": "sound",
}
_PLAIN: Final = frozenset(plain.name for plain in PLAIN)


@dataclass(frozen=True, slots=True)
class EditHistory:
    """An edit with all that its row says, and the database's clock as it was read. Times aware, UTC."""

    id: str
    seq: int
    post_id: str
    workspace_id: str
    status: str
    changes: dict[str, Any]
    if_match: list[str] | None
    requested_by: str
    request_id: str | None
    reschedule_id: str | None
    created_at: datetime
    attempts: int
    started_at: datetime | None
    lock_wait_ms: int | None
    finalized_at: datetime | None
    revision: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    error_details: list[dict[str, str]] | None
    read_at: datetime

    @property
    def waited(self) -> timedelta:
        """From its acceptance to its end, or until now."""
        return (self.finalized_at or self.read_at) - self.created_at


@dataclass(frozen=True, slots=True)
class Overwrite:
    """A later change that a requeued edit would overwrite: its edit, and the fields in question (`caption`, `time`,
    `content`, `sound`).
    """

    edit_id: str
    status: str
    at: datetime
    requested_by: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a requeue would do to the post as it is now. The operator sees it before confirming.

    `before` and `after` are the fields that would change. `mark` is a hash of all that was shown. It is computed again
    under the lock; if it differs, the operator is asked again.
    """

    edit: EditHistory
    overwrites: tuple[Overwrite, ...]
    waiting: int
    before: dict[str, Any]
    after: dict[str, Any]
    refusal: str | None
    goes_out_at_once: bool
    mark: str

    def sentences(self) -> list[str]:
        """What an operator should know before saying yes."""
        sentences = []
        if self.refusal is not None:
            sentences.append(f"As the post stands, it would be refused again: {self.refusal}.")
        elif not self.after:
            sentences.append("As the post stands, it would change nothing.")
        if self.overwrites:
            count = len(self.overwrites)
            sentences.append(
                "It would overwrite a change that was made after it."
                if count == 1
                else f"It would overwrite {count} changes that were made after it."
            )
        else:
            sentences.append("No later change touches the same fields: it overwrites nothing.")
        if self.waiting:
            sentences.append(f"It gets its place behind {counted(self.waiting, 'edit')} that wait for this post.")
        if self.goes_out_at_once:
            sentences.append("The time that it sets has passed: the post would go out at once.")
        return sentences


def touched(changes: Mapping[str, Any], after: Mapping[str, Any] | None) -> frozenset[str]:
    """The groups of fields that an edit, or a bulk job's move, asked for or changed."""
    named = {*changes, *(after or {})}
    return frozenset(GROUPS[name] for name in named if name in GROUPS) | (
        {"time"} if "move" in changes or PUBLISH_NOW in changes else frozenset()
    )


def touching(changes: Mapping[str, Any]) -> list[str]:
    """The names, in the changes of another edit, by which it touches a field that this edit touches too."""
    return names_of(touched(changes, None))


def names_of(groups: AbstractSet[str]) -> list[str]:
    """The names by which an edit touches one of these groups of fields, in its changes and among what it changed."""
    names = {name for name, group in GROUPS.items() if group in groups}
    return sorted(names | ({"move", PUBLISH_NOW} if "time" in groups else set()))


def prospect(edit: EditHistory, post: PostFacts | None, newer: Sequence[EditHistory], now: datetime) -> Prospect:
    """What a requeue of `edit` would do. `newer`: of the post's applied and queued edits that came after it, those
    that touch its fields (`touching`) and those that are queued, newest first.

    Edits that are queued still come before its new place, and are overwritten like those that were applied.
    """
    mine = touched(edit.changes, None)
    overwrites = tuple(
        Overwrite(other.id, other.status, other.finalized_at or other.created_at, other.requested_by, tuple(shared))
        for other in newer
        if (shared := sorted(mine & touched(other.changes, other.after)))
    )
    waiting = sum(other.status == EditStatus.QUEUED for other in newer)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    refusal: str | None = None
    at_once = False
    patch = EditPatch.from_changes(edit.changes)
    if post is None:
        refusal = f"there is no post {edit.post_id}"
    else:
        decision = lifecycle.decide(post, patch, edit.created_at, edit.if_match)
        if isinstance(decision, lifecycle.Reject):
            label = f" ({decision.details[0].message})" if decision.code == "cannot_edit" else ""
            refusal = f"{decision.message.rstrip('.')}{label}"
        else:
            before, after = posts.difference(post, decision.after)
            at_once = patch.at_once or (patch.instant is not UNSET and patch.instant <= now)
    seen = [edit.id, edit.status, edit.seq, post and (post.revision, post.status, post.claim, post.deleted)]
    mark = sha256(repr([seen, [(one.edit_id, one.status) for one in overwrites], waiting]).encode()).hexdigest()[:16]
    return Prospect(edit, overwrites, waiting, before, after, refusal, at_once, mark)


def milestones(edit: EditHistory) -> list[tuple[str, datetime | None, str]]:
    """(what happened, when, a note) from acceptance to the end; None for what has not happened."""
    steps: list[tuple[str, datetime | None, str]] = [("accepted", edit.created_at, f"by {edit.requested_by}")]
    note = f"after {duration(edit.started_at - edit.created_at)}" if edit.started_at else "no worker has taken it"
    if edit.attempts > 1:
        note += f"; attempt {edit.attempts}"
    if edit.reschedule_id is None:
        steps.append(("started", edit.started_at, note))
    if edit.lock_wait_ms is not None:
        waited = f"waited {edit.lock_wait_ms} ms for it" if edit.lock_wait_ms else "no other session had it locked"
        steps.append(("post locked", None, waited))
    end = edit.status if edit.finalized_at else "not ended"
    steps.append((end, edit.finalized_at, f"{duration(edit.waited)} after it was accepted"))
    return steps


def duration(length: timedelta) -> str:
    """`85 ms`, `2.1 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`: two figures at most. Never negative."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for large, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def moment(instant: datetime | None) -> str | None:
    """`2024-04-22T19:00:00.123Z`: an operator compares these with logs."""
    return (
        None if instant is None else instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def without_secrets(value: Any) -> Any:
    """The same without the query of any URL in it: a query may hold a secret (docs/security.md)."""
    if isinstance(value, str):
        if value.startswith(("http://", "https://")) and "?" in value:
            return f"{value.partition('?')[0]}?…"
        return value
    if isinstance(value, dict):
        return {name: one if name in _PLAIN else without_secrets(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return value


def as_json(edit: EditHistory) -> dict[str, Any]:
    """The edit as `--json` shows it, every time with its milliseconds."""
    error = None
    if edit.error_code is not None:
        error = {"code": edit.error_code, "message": edit.error_message, "details": edit.error_details}
    return {
        "editId": edit.id,
        "postId": edit.post_id,
        "workspaceId": edit.workspace_id,
        "status": edit.status,
        "changes": without_secrets(edit.changes),
        "ifMatch": edit.if_match,
        "requestedBy": edit.requested_by,
        "requestId": edit.request_id,
        "rescheduleId": edit.reschedule_id,
        "createdAt": moment(edit.created_at),
        "startedAt": moment(edit.started_at),
        "lockWaitMs": edit.lock_wait_ms,
        "finalizedAt": moment(edit.finalized_at),
        "attempts": edit.attempts,
        "revision": edit.revision,
        "before": without_secrets(edit.before),
        "after": without_secrets(edit.after),
        "error": error,
    }


def prospect_as_json(seen: Prospect) -> dict[str, Any]:
    """The same for what a requeue would do."""
    return {
        "overwrites": [
            {
                "editId": one.edit_id,
                "status": one.status,
                "at": moment(one.at),
                "requestedBy": one.requested_by,
                "fields": list(one.fields),
            }
            for one in seen.overwrites
        ],
        "before": without_secrets(seen.before),
        "after": without_secrets(seen.after),
        "refusal": seen.refusal,
        "goesOutAtOnce": seen.goes_out_at_once,
    }


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    all_of = list(names)
    return all_of[0] if len(all_of) == 1 else f"{', '.join(all_of[:-1])} and {all_of[-1]}" if all_of else ""
