"""Why a post has not gone out, in one sentence, from what its row and its tries say.

Pure. `redraft posts stuck`, `redraft posts show`, `redraft doctor` and the operators' pages all say the same.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from shared.domain import failure_classes, waits
from shared.domain.edit_histories import duration
from shared.domain.failure_classes import FailureClass
from shared.domain.holds import MISSED, Hold, Level
from shared.domain.lifecycle import ClaimKind, Status
from shared.domain.service_answers import FAILURES, Outcome, Past
from shared.domain.waits import NOTHING_FOUND, Waits


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tries a post has: such as failed, such as ended unknown, and renders. `call`: the seconds that a call of
    a service may take.
    """

    failures: int = 10
    unknown: int = 3
    call: float = 30.0


@dataclass(frozen=True, slots=True)
class LastTry:
    """The latest try at publishing. `outcome`: None until its result is recorded.

    `forgiven`: an operator or client has put the post back since.
    """

    number: int
    claim_token: str
    started_at: datetime
    outcome: str | None = None
    message: str | None = None
    forgiven: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What a post's row says. `retry_at`: not tried before; `enqueued_at`: last sent to the workers. Times aware.

    `render_tries`: renders that failed; `render_waits`: the renderer has said "not now" or "still at work".
    `render_outcome` and `render_message`: how its latest render ended, in the renderer's words. `failure_class`: None
    where the post failed before classes were recorded; `failure_message`: the last words. `edits`: how many edits wait
    for it; `wanted`: the time that the last of them would give it.
    """

    id: str
    status: str
    scheduled_time: datetime
    deleted: bool = False
    claim: str | None = None
    claim_token: str | None = None
    claim_expires_at: datetime | None = None
    retry_at: datetime | None = None
    enqueued_at: datetime | None = None
    render_tries: int = 0
    render_waits: bool = False
    failure_reason: str | None = None
    failure_class: str | None = None
    failure_message: str | None = None
    render_outcome: str | None = None
    render_message: str | None = None
    edits: int = 0
    wanted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a post is where it is. `code` is stable, for scripts; `next_at`: when it is tried next, where that is set.

    `tries` of `tries_most` are used up, where a limit counts down.
    """

    code: str
    words: str
    tries: int | None = None
    tries_most: int | None = None
    next_at: datetime | None = None


def of(
    row: Row,
    last: LastTry | None,
    past: Past,
    now: datetime,
    limits: Limits = Limits(),
    *,
    found: Waits = NOTHING_FOUND,
) -> Reason:
    """The reason. `past`: the tries under the latest key; `now`: the database's clock; `found`: what may keep workers
    from the post.
    """
    reason = _of_row(row, last, past, now, limits)
    if reason.code == "waits":
        return _before_its_time(row, reason, now, found)
    queue = _taken_by(row, now)
    blocked = waits.blocked(queue, row.id, found) if queue else None
    if blocked is None and reason.code == "unsent":
        blocked = waits.blocked("ops", row.id, found)
    if blocked is None:
        return reason
    # What the post's own row can only guess gives way to what was found. What it knows, such as an answer, does not.
    if reason.code in _GUESSES:
        return replace(reason, code=blocked.code, words=blocked.words)
    return replace(reason, words=f"{reason.words}; {blocked.words}")


_GUESSES: Final = ("sent", "unsent", "unrendered", "put_back")


def _taken_by(row: Row, now: datetime) -> str | None:
    """The queue whose worker should take the post at this moment; None where it waits for its time or its service."""
    if row.deleted or row.status in (Status.POSTED, Status.FAILED):
        return None
    at = row.claim_expires_at if row.claim is not None else row.retry_at
    if at is not None and at > now:
        return None
    rendering = row.claim == ClaimKind.RENDER if row.claim is not None else row.status == Status.PENDING_RENDER
    return "render" if rendering else "publish"


def _before_its_time(row: Row, reason: Reason, now: datetime, found: Waits) -> Reason:
    """The reason for a post whose time has not come: edits that wait for it may be about to change that."""
    if not row.edits:
        return reason
    many = "1 edit waits" if row.edits == 1 else f"{row.edits:,} edits wait"
    blocked = waits.blocked("edits", row.id, found)
    why = f": {blocked.words}" if blocked is not None else ""
    if row.wanted is not None and row.wanted <= now:
        words = f"an edit that waits gives it a time that has passed; {many} for the post{why}"
        return replace(reason, code="edit_waits", words=words, next_at=None)
    return replace(reason, code="edit_waits" if blocked else "waits", words=f"{reason.words}; {many} for it{why}")


def _of_row(row: Row, last: LastTry | None, past: Past, now: datetime, limits: Limits) -> Reason:
    """What the row and its tries say."""
    if row.deleted:
        return Reason("deleted", "a client deleted it, and it never goes out")
    if row.status == Status.POSTED:
        return Reason("posted", "it went out")
    if row.status == Status.FAILED:
        return _failed(row, last, past)
    if row.claim is not None:
        publishing = row.claim == ClaimKind.PUBLISH
        return _publishing(row, last, past, now, limits) if publishing else _rendering(row, now, limits)
    if row.retry_at is not None:
        return _between_tries(row, last, past, now, limits)
    return _unclaimed(row, now)


def held(row: Row, hold: Hold, now: datetime) -> Reason:
    """The reason for a post that waits and is held. One that a publish has claimed goes out all the same."""
    if hold.missed and (above := hold.above) is not None:
        words = f"its time went by while it was held, and its {above.level} is held by {above.by}: resume that first"
        return Reason(MISSED, words)
    if hold.missed:
        words = "its time went by while it was held: give it a new time, or let it go out now with"
        return Reason(MISSED, f"{words} redraft posts resume {row.id} --missed publish")
    what = "it" if hold.level is Level.POST else f"its {hold.level}"
    said = f": {hold.reason}" if hold.reason else ""
    return Reason("held", f"{what} is held by {hold.by} for {duration(now - hold.since)}{said}")


def _failed(row: Row, last: LastTry | None, past: Past) -> Reason:
    reason = row.failure_reason or "no reason is known"
    failure = failure_classes.of_row(row.failure_class, row.failure_reason)
    words = f"it failed: {reason}"
    if failure is not FailureClass.UNKNOWN:
        words += f"; {failure_classes.MEANINGS[failure]}"
    words += "; it may have gone out" if past.maybe_sent or failure is FailureClass.UNKNOWN else "; it did not go out"
    said = row.failure_message
    if row.failure_class is None and last is not None:
        said = last.message
    if said and said != reason:
        tried = f" on try {last.number}" if last is not None and said == last.message else ""
        words += f"; last words{tried}: {said}"
    return Reason("failed", words)


def _publishing(row: Row, last: LastTry | None, past: Past, now: datetime, limits: Limits) -> Reason:
    expires_at = row.claim_expires_at or now
    expired = expires_at <= now
    if last is None or last.claim_token != row.claim_token:
        # A claim and its try are written together. One without a try is an operator's or a client's retry.
        if not expired:
            return Reason("publishing", "it is being published now")
        return Reason(
            "put_back", "it was put back under its old key, and no worker has taken it up yet: that takes seconds"
        )
    if last.outcome is not None:
        return _answered(last, past, expires_at, now, limits)
    if not expired:
        since = now - last.started_at
        began = f"try {last.number} began {duration(since)} ago"
        if since.total_seconds() <= limits.call:
            return Reason("publishing", f"it is being published now: {began}")
        words = f"{began} and has no outcome: its worker may be gone; another takes it over in"
        return Reason("no_outcome", f"{words} {duration(expires_at - now)}")
    return Reason(
        "died",
        f"the worker that made try {last.number} died or hangs; rescue takes the post over within seconds, under the "
        "same key",
        past.unknown,
        limits.unknown,
    )


_ANSWERED: Final = {
    Outcome.DONE: "the publisher has answered that it is out",
    Outcome.PROCESSING: "the {} is still at work on it",
    Outcome.NOT_NOW: "the {} asks to wait",
    Outcome.NEVER_STARTED: "the {} could not be reached",
    Outcome.MISCONFIGURED: "the {} is set up wrongly",
    Outcome.SERVER_ERROR: "the {} failed",
    Outcome.REFUSED: "the {} refused it",
}
AT_WORK: Final = "the service is still at work"
"""The message of an answer that says nothing more than its outcome."""


def _said(service: str, outcome: Outcome, message: str | None) -> str:
    """An answer in words, and the service's own words beside it."""
    ended = _ANSWERED.get(outcome, f"its last try ended {outcome.value}").format(service)
    if outcome is Outcome.UNKNOWN:
        lost = {"publisher": "it is not known whether its last try went out", "renderer": "its last render got lost"}
        ended = lost[service]
    return f"{ended} ({message})" if message and message != AT_WORK else ended


def _answered(last: LastTry, past: Past, next_at: datetime, now: datetime, limits: Limits) -> Reason:
    """Between two tries: what was answered, how many tries are used up, and when the next one comes."""
    outcome = Outcome(last.outcome or Outcome.UNKNOWN)
    tries = most = None
    if outcome in FAILURES:
        tries, most = past.failures, limits.failures
    elif outcome is Outcome.UNKNOWN:
        tries, most = past.unknown, limits.unknown
    counted = f"; {tries} of {most} tries are used up" if tries is not None else f"; that was try {last.number}"
    words = f"{_said('publisher', outcome, last.message)}{counted}; {_next(next_at, now)}"
    return Reason(outcome.value, words, tries, most, next_at)


def _rendering(row: Row, now: datetime, limits: Limits) -> Reason:
    number = row.render_tries + 1
    if row.claim_expires_at is not None and row.claim_expires_at <= now:
        words = f"the worker that made try {number} to render it died or hangs; rescue takes it over within seconds"
        return Reason("render_died", words, number, limits.failures)
    words = f"it is being rendered now: try {number} of {limits.failures}"
    if row.render_outcome is not None:
        words += f"; before that {_said('renderer', Outcome(row.render_outcome), row.render_message)}"
    return Reason("rendering", words, row.render_tries, limits.failures)


def _between_tries(row: Row, last: LastTry | None, past: Past, now: datetime, limits: Limits) -> Reason:
    """Free, and not tried before `retry_at`."""
    at = row.retry_at or now
    if row.status == Status.PENDING_RENDER:
        return _between_renders(row, at, now, limits)
    if last is not None and last.outcome is not None and not last.forgiven:
        return _answered(last, past, at, now, limits)
    return Reason("between_tries", f"its last try failed; {_next(at, now)}", next_at=at)


def _between_renders(row: Row, at: datetime, now: datetime, limits: Limits) -> Reason:
    """What the renderer answered, how many tries are used up, and when the next one comes. A row that an older version
    wrote has no answer.
    """
    code = "between_renders"
    what = "the renderer asks to wait, or is still at work" if row.render_waits else "its last render failed"
    if row.render_outcome is not None:
        code = f"render_{row.render_outcome}"
        what = _said("renderer", Outcome(row.render_outcome), row.render_message)
    words = f"{what}; {row.render_tries} of {limits.failures} tries are used up; {_next(at, now)}"
    return Reason(code, words, row.render_tries, limits.failures, at)


def _unclaimed(row: Row, now: datetime) -> Reason:
    """The reason for a post without a claim."""
    if row.status == Status.PENDING_RENDER:
        return Reason(
            "unrendered",
            f"it waits for its render{'' if row.scheduled_time > now else ', and goes out right after it'}",
        )
    if row.scheduled_time > now:
        return Reason("waits", "it waits for its time", next_at=row.scheduled_time)
    if row.enqueued_at is None:
        words = "it was not sent to the workers: look for beat and an ops worker (redraft doctor)"
        return Reason("unsent", words)
    return Reason("sent", "it was sent to the workers: look for a publish worker (redraft doctor)")


def _next(at: datetime, now: datetime) -> str:
    if at <= now:
        return "the next one is due now"
    return f"the next one comes {f'in {duration(at - now)}' if at - now >= timedelta(seconds=1) else 'within a second'}"
