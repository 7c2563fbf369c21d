"""Webhooks: lease the next event of each post, call, finish; in order for each post, at least once."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from pydantic_core import to_json

from shared.domain.service_answers import Outcome, Reply
from shared.domain.times import format_instant
from shared.settings import settings
from shared.store import webhooks as webhooks_store
from shared.store.db import transaction
from shared.store.webhooks import Delivery, Leased
from worker import retries
from worker.follow_ups import FollowUps
from worker.outbound import services
from worker.outbound.call_pool import CallPool, Completed, InFlight, finish_or_keep

SHIFT = 20.0
"""Seconds after which a task rings for the rest, so that a post with many events shares its worker with the others."""

POLL = 0.05
"""Seconds between two looks at calls in flight, while there is other work."""

WORDS_LOGGED = 3
"""Different last words that a task's line in the log holds, the most frequent ones."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Called:
    """A leased event and the call to make for it. `began`: monotonic seconds, taken before the lease's commit."""

    event: Leased
    began: float


@dataclass(slots=True)
class _Tally:
    """What one task did. `counts`: deliveries by the status of their events; `words`: why events were not taken."""

    counts: dict[str, int] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    event_id: str = ""

    def log(self) -> None:
        """One line for all events that were not taken: a receiver that is away must not fill the log."""
        if self.words:
            log.warning(
                "webhooks_not_taken",
                events=self.words.total(),
                delivered=self.counts.get("delivered", 0),
                dead=self.counts.get("dead", 0),
                reasons=[f"{count} {words}" for words, count in self.words.most_common(WORDS_LOGGED)],
                event_id=self.event_id,
            )


def deliver(post_ids: Sequence[str], calls: CallPool, send: Callable[[FollowUps], object]) -> dict[str, int]:
    """Deliver the events of these posts, many posts side by side, each one's events one after the other.

    Returned: counts by the status of the deliveries. `send` gets at the end what must be rung for: the posts that are
    left.
    """
    tally = _Tally()
    if not webhooks_store.wanted():
        return tally.counts
    rest, in_flight = list(dict.fromkeys(post_ids)), InFlight[Called](calls)
    unfinished: list[Completed[Called]] = []
    deadline = time.monotonic() + SHIFT
    try:
        while (rest and time.monotonic() < deadline) or in_flight.count or unfinished:
            busy = bool(in_flight.count or unfinished)
            wanted = len(rest) if time.monotonic() < deadline else 0
            capacity = calls.take(wanted, POLL if busy else SHIFT) if wanted else 0
            if capacity:
                _lease_and_call(rest[:capacity], capacity, calls, in_flight)
                rest = rest[capacity:]
            elif not busy:
                break
            completed = in_flight.completed(0 if capacity and rest else POLL)
            unfinished, more = _finish([*unfinished, *completed], tally)
            rest += more
    finally:
        while in_flight.count or unfinished:
            completed = in_flight.completed(POLL if unfinished else None)
            unfinished, more = _finish([*unfinished, *completed], tally)
            rest += more
        tally.log()
    send(FollowUps(webhooks=rest))
    return tally.counts


def _lease_and_call(post_ids: list[str], capacity: int, calls: CallPool, in_flight: InFlight[Called]) -> None:
    leased: list[Leased] = []
    began = time.monotonic()
    try:
        with transaction() as tx:
            leased = webhooks_store.lease(tx, post_ids, settings().claim_expiry)
    finally:
        calls.give_back(capacity - len(leased))
    for event in leased:
        in_flight.start(Called(event, began), _call)


def _call(called: Called) -> Reply:
    """Call for a leased event, unless the lease is so old (a frozen process) that another worker may have taken it.

    That worker has delivered the event and later ones: the receiver would hear old news.
    """
    if time.monotonic() - called.began > settings().claim_expiry / 2:
        return Reply(Outcome.NEVER_STARTED, message="its lease had become too old to begin")
    event = called.event
    data = event.data | {"sequence": event.seq}
    said = {"id": event.id, "type": event.type, "createdAt": format_instant(event.created_at), "data": data}
    return services.call("webhook", to_json(said).decode(), event.id, event.tries, event.now)


def _finish(completed: list[Completed[Called]], tally: _Tally) -> tuple[list[Completed[Called]], list[str]]:
    """Finish deliveries. Returned: those that could not be written yet, and the posts whose next event may go."""
    more: list[str] = []

    def finish(some: Sequence[Completed[Called]]) -> list[Completed[Called]]:
        with transaction() as tx:
            finished = webhooks_store.finish(tx, [_delivery(one) for one in some])
        for one in some:
            if one.reply.kind != "done":
                tally.words[one.reply.message or one.reply.kind] += 1
                tally.event_id = tally.event_id or one.item.event.id
        for post_id, status in finished.items():
            tally.counts[status] = tally.counts.get(status, 0) + 1
            if status != "queued":
                more.append(post_id)
        return []

    return finish_or_keep(completed, finish, settings().claim_expiry), more


def _delivery(completed: Completed[Called]) -> Delivery:
    event, reply = completed.item.event, completed.reply
    # A receiver that answers "Retry-After: 0" for a day is asked some 500 times, not 86,400 times.
    asking = max(timedelta(), event.now - event.queued_at)
    wait = retries.wait(reply, event.tries, random.random(), asking).total_seconds()  # noqa: S311  -- spreads only
    return Delivery(
        event.seq,
        event.lease_token,
        delivered=reply.outcome is Outcome.DONE,
        message=reply.message,
        wait=wait,
        outcome=reply.outcome.value,
        answer=reply.status,
        took_ms=None if reply.took is None else round(reply.took * 1000),
        unwanted=reply.outcome is Outcome.REFUSED,  # 410: the receiver wants no more of it
    )
