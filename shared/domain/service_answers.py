"""What an answer of a publisher, a renderer or a receiver of webhooks means. Pure; docs/services.md has the table.

`read` makes a Reply of an answer. `worker/retries.py` decides from a Reply and from the earlier tries what comes next.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic_core import from_json

Service = Literal["publish", "render", "webhook"]

MESSAGE_LIMIT: Final = 500
KEY_MARGIN: Final = 3600.0
RETRY_AFTER_LIMIT: Final = 64
"""Characters of a Retry-After that are looked at: a date has 29."""


class Outcome(StrEnum):
    """How one call of an outside service ended. The values stand in `publish_attempts.outcome`."""

    DONE = "done"  # 2xx with a JSON object or without a body
    PROCESSING = "processing"  # 202: the service is still at work on this very request
    NOT_NOW = "not_now"  # 429 and its like: ask again later
    REFUSED = "refused"  # other 4xx: the request itself is at fault
    MISCONFIGURED = "misconfigured"  # 401, 404, a redirect: the service is set up wrongly, every call will end so
    NEVER_STARTED = "never_started"  # connection refused, name unknown: nothing can have been sent
    SERVER_ERROR = "server_error"  # 5xx, and a 2xx that no service of ours would give
    UNKNOWN = "unknown"  # timed out, cut off, or its caller died: it may have happened


FAILURES: Final = frozenset({Outcome.NEVER_STARTED, Outcome.SERVER_ERROR, Outcome.MISCONFIGURED})
"""Outcomes that each use up one of the tries that a request has within an hour."""

NOT_SENT: Final = frozenset({Outcome.NEVER_STARTED, Outcome.REFUSED})
"""Outcomes after which the request has certainly had no effect. All others may have had one."""

KEY_TOO_OLD: Final = (
    "its key is older than the publisher must remember, so no request was sent: "
    "look at the platform whether it went out"
)
WORKER_GONE: Final = "its worker was gone"
"""The message of a try whose worker died. It was written when that was noticed, so it ends no call."""

NOT_NOW: Final = frozenset({408, 409, 421, 423, 425, 429})
MISCONFIGURED: Final = frozenset({401, 403, 404, 405, 407})


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended. `data` is what may be used of an answer where `kind` is done; `message` says why it is not.

    `never_started` only where nothing can have been sent. `retry_after`: seconds that the service asks us to wait.
    `status`: the HTTP status, for logs of tries; None where there was no answer. What it means stands in `kind`.
    `took`: seconds that the call lasted; None where no call was made.
    """

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    retry_after: float | None = None
    status: int | None = field(default=None, compare=False)
    took: float | None = field(default=None, compare=False)

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.kind)


def read(
    service: Service, status: int, body: bytes | None, retry_after: float | None = None, *, ended: bool = True
) -> Reply:
    """What an answer means. `body`: None where it was longer than we read. `data` is the answer's object, unchecked.

    `ended`: the answer says itself where it ends. Else only the end of the connection does.
    """
    said = _object(body)
    if service == "webhook":
        return _read_receipt(status, body, said, retry_after)
    if 200 <= status < 300:
        if status == 202 or _at_work(said):
            return Reply(Outcome.PROCESSING, message="the service is still at work", retry_after=retry_after)
        if said is None and (body is None or body.strip()):
            return Reply(Outcome.SERVER_ERROR, message=_not_ours(status, body), retry_after=retry_after)
        if said is None and not ended:
            # A body may have been on its way: "still at work", for one.
            return Reply(Outcome.UNKNOWN, message=f"the answer {status} was cut off before its body")
        return Reply(Outcome.DONE, said or {})
    outcome = _of_status(status)
    return Reply(outcome, message=_words(status, said, outcome), retry_after=retry_after)


def _read_receipt(status: int, body: bytes | None, said: dict[str, Any] | None, retry_after: float | None) -> Reply:
    """A receiver of webhooks acknowledges with any 2xx, save one that carries a page for people: a login page.

    A 4xx says nothing of the event: it is offered again. Only 410 says that it is not wanted (RFC 9110, 15.5.11).
    """
    if 200 <= status < 300:
        if body is not None and body.lstrip()[:1] == b"<":
            return Reply(Outcome.SERVER_ERROR, message=_not_ours(status, body), retry_after=retry_after)
        return Reply(Outcome.DONE)
    outcome = _of_status(status)
    if outcome is Outcome.REFUSED and status != 410:
        outcome = Outcome.SERVER_ERROR
    return Reply(outcome, message=_words(status, said, outcome), retry_after=retry_after)


def _of_status(status: int) -> Outcome:
    """What a status other than 2xx means. One that HTTP does not know is the service's mistake (RFC 9110, 15)."""
    if status in NOT_NOW:
        return Outcome.NOT_NOW
    if status in MISCONFIGURED or 300 <= status < 400:
        return Outcome.MISCONFIGURED
    return Outcome.REFUSED if 400 <= status < 500 else Outcome.SERVER_ERROR


def _object(body: bytes | None) -> dict[str, Any] | None:
    try:
        said = from_json(body or b"")
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _at_work(said: dict[str, Any] | None) -> bool:
    status = (said or {}).get("status")
    return isinstance(status, str) and status.lower() == "processing"


def _not_ours(status: int, body: bytes | None) -> str:
    what = "more than we read" if body is None else "a page" if body.lstrip()[:1] == b"<" else "something else"
    return f"the service answered {status} with {what} where a JSON object belongs"


def _words(status: int, said: dict[str, Any] | None, outcome: Outcome) -> str:
    error = (said or {}).get("error")
    words = readable(error.get("message")) if isinstance(error, dict) else ""
    if words and outcome is not Outcome.MISCONFIGURED:
        return words
    # To correct a setting, an operator needs the status too.
    return f"the service answered {status}" + (f": {words}" if words else "")


def readable(said: object) -> str:
    """A service's text made fit for a row, a log and an answer: one line, bounded, printable."""
    if not isinstance(said, str):
        return ""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in said[: 4 * MESSAGE_LIMIT]).split())
    return words if len(words) <= MESSAGE_LIMIT else f"{words[: MESSAGE_LIMIT - 1]}…"


def retry_after(given: str | None, said_at: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After asks for, in either of its forms (RFC 9110, 10.2.3); None for one that is none.

    A date is measured from the answer's own Date (`said_at`) where there is one: two clocks may differ. Never negative.
    """
    value = (given or "").strip()
    if not value or len(value) > RETRY_AFTER_LIMIT:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    until = _date(value)
    return None if until is None else max(0.0, (until - (_date(said_at or "") or now)).total_seconds())


def _date(value: str) -> datetime | None:
    if len(value) > RETRY_AFTER_LIMIT:
        return None
    try:
        date = parsedate_to_datetime(value.strip())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the tries under one key. shared/store/publish_attempts.py computes it from the rows.

    The counts and their times begin anew when an operator retries. `uncertain`, `accepted` and `maybe_sent` do not:
    only an operator's statement that the request had no effect resets them. Nothing resets the rest. Times are UTC.

    `uncertain`: a try ended unknown. Only a 2xx under the same key resolves that.
    `accepted`: a try was answered "still at work".
    `maybe_sent`: a try may have had its effect. Key and body must not change.
    `maybe_since`: when the first such try began. The publisher counts the age of the key from there.
    `done`: a try was answered 2xx, under this key or an older one. The post is out, as `platform_post_id` if the
        publisher gave that.
    """

    failures: int = 0
    unknown: int = 0
    waits: int = 0
    failing_since: datetime | None = None
    busy_since: datetime | None = None
    working_since: datetime | None = None
    uncertain: bool = False
    accepted: bool = False
    maybe_sent: bool = False
    maybe_since: datetime | None = None
    done: bool = False
    platform_post_id: str | None = None

    def with_try(self, outcome: Outcome, started_at: datetime, platform_post_id: str | None = None) -> "Past":
        """The same after one more try that ended so."""
        done, maybe = self.done or outcome is Outcome.DONE, outcome not in NOT_SENT
        failed, busy, working = outcome in FAILURES, outcome is Outcome.NOT_NOW, outcome is Outcome.PROCESSING
        return replace(
            self,
            failures=self.failures + failed,
            unknown=self.unknown + (outcome is Outcome.UNKNOWN),
            waits=self.waits + busy,
            failing_since=self.failing_since or (started_at if failed else None),
            busy_since=self.busy_since or (started_at if busy else None),
            working_since=self.working_since or (started_at if working else None),
            uncertain=(self.uncertain or outcome is Outcome.UNKNOWN) and not done,
            accepted=self.accepted or working,
            maybe_sent=self.maybe_sent or maybe,
            maybe_since=self.maybe_since or (started_at if maybe else None),
            done=done,
            platform_post_id=self.platform_post_id or platform_post_id,
        )

    def forgiven(self, *, not_sent: bool = False) -> "Past":
        """The same after an operator's retry; `not_sent`: the operator said that the request had no effect."""
        if not_sent:
            return Past(maybe_since=self.maybe_since, done=self.done, platform_post_id=self.platform_post_id)
        return Past(
            uncertain=self.uncertain,
            accepted=self.accepted,
            maybe_sent=self.maybe_sent,
            maybe_since=self.maybe_since,
            done=self.done,
            platform_post_id=self.platform_post_id,
        )

    def key_too_old(self, now: datetime, keeps: float) -> bool:
        """Whether no request may begin under this key any more: the publisher may forget it soon, or has.

        `keeps`: the seconds for which a publisher must remember a key. The margin before that is an hour, or a sixth
        where that is less. It covers the time from a claim to its call, and clocks that differ.
        """
        longest = timedelta(seconds=keeps - min(KEY_MARGIN, keeps / 6))
        return self.maybe_since is not None and now - self.maybe_since >= longest

    @classmethod
    def of(cls, tries: Iterable[tuple[Outcome, datetime]]) -> "Past":
        """Of tries in their order: how each ended, and when it began."""
        past = cls()
        for outcome, started_at in tries:
            past = past.with_try(outcome, started_at)
        return past
