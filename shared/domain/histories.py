"""What operators and clients did to an edit or a post after its end, as operators read it. Pure.

The rows stand in `acts` (shared/store/acts.py). Command line and operators' pages use the same words.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.edit_histories import EditHistory, duration, moment, without_secrets
from shared.domain.times import parse_instant, to_local

DONE: Final[Mapping[str, str]] = {
    "retry": "put back",
    "retry_not_sent": "put back",
    "went_out": "found to be out",
    "try_now": "tried at once",
    "requeue": "requeued",
    "discard": "discarded",
    "resend": "sent again",
    "cancel": "canceled",
    "revert": "reverted",
    "undo": "undone",
    "hold": "held",
    "resume": "resumed",
    "publish": "let go at once",
}

_BESIDE: Final[Mapping[str, str]] = {
    "retry_not_sent": ", who said that it had not gone out",
    "went_out": ", from an answer that came late",
}


def words(action: str, actor: str, from_state: str, before: Mapping[str, Any]) -> str:
    """`requeued by kim; before: failed, internal (An unexpected error occurred)`."""
    done = DONE.get(action, action.replace("_", " "))
    return f"{done} by {actor}{_BESIDE.get(action, '')}; before: {from_state}{_why(before)}"


def _why(before: Mapping[str, Any]) -> str:
    if reason := before.get("failureReason"):
        return f", {reason}"
    error = before.get("error") or {}
    if code := error.get("code"):
        return f", {code} ({error.get('message')})" if error.get("message") else f", {code}"
    return ""


def as_json(at: datetime, action: str, actor: str, from_state: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """An act as `--json` shows it, with what stood there before."""
    return {
        "at": moment(at),
        "by": actor,
        "action": action,
        "fromState": from_state,
        "before": without_secrets(dict(before)),
        "words": words(action, actor, from_state, before),
    }


def overwritten(edit: EditHistory) -> dict[str, Any]:
    """What a requeue or a discard of an edit overwrites, under the public names."""
    error = {"code": edit.error_code, "message": edit.error_message, "details": edit.error_details}
    return {
        "status": edit.status,
        "place": edit.seq,
        "attempts": edit.attempts,
        "startedAt": moment(edit.started_at),
        "lockWaitMs": edit.lock_wait_ms,
        "finalizedAt": moment(edit.finalized_at),
        "revision": edit.revision,
        "before": edit.before,
        "after": edit.after,
        "error": error if edit.error_code is not None else None,
    }


def in_zone(instant: datetime | str | None, zone_name: str | None) -> str | None:
    """`2026-11-26 10:00 America/New_York`, to stand beside a time in UTC. `instant`: aware, or as the API shows it.
    None without a time or a zone.
    """
    at = parse_instant(instant) if isinstance(instant, str) else instant
    return f"{to_local(at, zone_name):%Y-%m-%d %H:%M} {zone_name}" if at is not None and zone_name else None


def away(instant: datetime, now: datetime) -> str:
    """`4 min ago`, `in 2 d`: beside the time itself one figure is enough. Less than a second is `just now`."""
    if abs(now - instant) < timedelta(seconds=1):
        return "just now" if instant <= now else "in a moment"
    number, unit = duration(abs(now - instant)).split()[:2]
    return f"{number} {unit} ago" if instant <= now else f"in {number} {unit}"
