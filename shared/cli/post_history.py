"""The lines in which `redraft posts show` tells one post's history."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.domain.posts import Post


def lines_of(post: "Post", shown: dict[str, Any], now: datetime) -> list[str]:
    facts = post.facts
    lines = [f"{facts.id} in {post.workspace_id}: {'deleted, was ' if facts.deleted else ''}{facts.status}"]
    beside = {"accountId": shown["accountName"], "scheduledTime": shown["localTime"]}
    lines += [
        f"  {name:<15} {value}" + (f" ({beside[name]})" if beside.get(name) else "")
        for name, value in shown["post"].items()
        if name not in {"postId", "status", "held"} and value is not None
    ]
    lines.append(f"  {'revision':<15} {facts.revision}")
    lines.append(f"  {'why':<15} {shown['why']}")
    if facts.claim is not None and post.claim_expires_at is not None:
        lines.append(
            f"  {'claim':<15} {_claim(facts.claim, post.claim_expires_at - now, waits=shown['nextTryAt'] is not None)}"
        )
    if post.retry_at is not None:
        lines.append(f"  {'next try':<15} {shown['retryAt']}")
    if (rendered := shown["lastRender"]) is not None:
        said = f": {rendered['message']}" if rendered["message"] else ""
        lines.append(f"  {'last render':<15} {rendered['answeredAt']} {rendered['outcome']}{said}")
    if shown["tries"]:
        lines.append("Its latest tries at going out:")
    for one in shown["tries"]:
        outcome = f"{one['outcome'] or 'no outcome yet'}{': ' + one['message'] if one['message'] else ''}"
        lines.append(f"  {one['startedAt']} try {one['number']} of {one['key']}: {outcome}")
    if shown["edits"]:
        lines.append("Its latest edits (redraft edits show EDIT tells more):")
    lines += [f"  {edit['createdAt']} {edit['editId']} {edit['status']}" for edit in shown["edits"]]
    if shown["acts"]:
        lines.append("What was done to it:")
    lines += [f"  {act['at']} {act['words']}" for act in shown["acts"]]
    if shown["failure"] is not None:
        failure = shown["failure"]
        lines += _another_try(facts.id, maybe_sent=failure["maybeSent"], key_too_old=failure["keyTooOld"])
    return lines


def _claim(kind: str, left: timedelta, *, waits: bool) -> str:
    """A claim in words. `waits`: it only keeps the post for its next try, which comes when its time is over."""
    from shared.domain.edit_histories import duration  # noqa: PLC0415 - heavy imports wait until the command runs

    if left <= timedelta(0):
        return "closed to edits; next try now" if waits else f"{kind}, expired; rescue takes it over"
    return f"closed to edits; next try in {duration(left)}" if waits else f"{kind}, for {duration(left)} more"


def _another_try(post_id: str, *, maybe_sent: bool, key_too_old: bool) -> list[str]:
    """Whether a failed post may have gone out, and what can be done about it."""
    retry_it = f"redraft posts retry {post_id}"
    if not maybe_sent:
        return ["\nIt did not go out. Another try, which leaves it open to edits:", f"  {retry_it}"]
    if key_too_old:
        again = [
            "\nIt may have gone out. Its key is older than the publisher must remember, so a",
            "plain retry leaves it as it is.",
        ]
    else:
        again = [
            "\nIt may have gone out. Another try asks again under its old key with its old",
            "body, and the post is closed to edits:",
            f"  {retry_it}",
        ]
    return [
        *again,
        "If you have looked on the platform and know that it did not go out, say so with",
        "--not-sent. It comes back open to edits, and may go out under a new key. Your",
        "word is kept with your name:",
        f"  {retry_it} --not-sent",
    ]
