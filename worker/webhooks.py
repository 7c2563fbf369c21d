"""Webhooks: lease the next event of each post, call, finish; in order for each post, at least once (SPEC 6)."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from pydantic_core import to_json

from shared.domain.service_answers import Outcome, Reply
from shared.domain.times import format_instant
from shared.settings import settings
from shared.store import webhooks as webhooks_store
from shared.store.db import transaction
from shared.store.webhooks import Delivery, Leased
from worker import retries
from worker.outbound import services
from worker.outbound.call_pool import CallPool, Completed, InFlight, settled

# After this a task rings on, so that a post with a long story shares its worker with the others.
SHIFT = 20.0
LOOK_AGAIN = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Called:
    """A leased event that is to be called for. `began`: monotonic seconds, from before the lease's commit."""

    event: Leased
    began: float


def deliver(post_ids: Sequence[str], calls: CallPool, ring: Callable[[list[str]], object]) -> dict[str, int]:
    """Tell what happened to these posts, side by side, each one's events one after the other.

    Counts by how deliveries ended. `ring` is called at the end with the posts that are left.
    """
    counts: dict[str, int] = {}
    if not webhooks_store.wanted():
        return counts
    rest, flight = list(dict.fromkeys(post_ids)), InFlight[Called](calls)
    unsettled: list[Completed[Called]] = []
    ends = time.monotonic() + SHIFT
    try:
        while (rest and time.monotonic() < ends) or flight.up or unsettled:
            busy = bool(flight.up or unsettled)
            room = calls.take(len(rest), LOOK_AGAIN if busy else SHIFT) if rest and time.monotonic() < ends else 0
            if room:
                _lease_and_call(rest[:room], room, calls, flight)
                rest = rest[room:]
            elif not busy:
                break
            landed = flight.landed(0 if room and rest else LOOK_AGAIN)
            unsettled, more = _settle([*unsettled, *landed], counts)
            rest += more
    finally:
        while flight.up or unsettled:
            unsettled, more = _settle([*unsettled, *flight.landed(LOOK_AGAIN if unsettled else None)], counts)
            rest += more
    ring(rest)
    return counts


def _lease_and_call(post_ids: list[str], room: int, calls: CallPool, flight: InFlight[Called]) -> None:
    leased: list[Leased] = []
    began = time.monotonic()
    try:
        with transaction() as tx:
            leased = webhooks_store.lease(tx, post_ids, settings().claim_expiry)
    finally:
        calls.give_back(room - len(leased))
    for event in leased:
        flight.launch(Called(event, began), _call)


def _call(called: Called) -> Reply:
    """Call for a leased event, unless so much time has passed (a frozen process) that it may not be ours any more: who
    took it since has delivered it, and what came after it, and the receiver would hear the past.
    """
    if time.monotonic() - called.began > settings().claim_expiry / 2:
        return Reply(Outcome.NEVER_STARTED, message="its lease had become too old to begin")
    event = called.event
    data = event.data | {"sequence": event.seq}
    said = {"id": event.id, "type": event.type, "createdAt": format_instant(event.created_at), "data": data}
    return services.call("webhook", to_json(said).decode(), event.id, event.tries, event.now)


def _settle(landed: list[Completed[Called]], counts: dict[str, int]) -> tuple[list[Completed[Called]], list[str]]:
    """Finish deliveries; those that could not be written down yet, and the posts whose next event may go."""
    more: list[str] = []

    def finish(some: Sequence[Completed[Called]]) -> list[Completed[Called]]:
        with transaction() as tx:
            ended = webhooks_store.finish(tx, [_delivery(one) for one in some])
        for one in some:
            if one.reply.kind != "done":
                event = one.item.event
                log.warning("webhook_not_taken", event_id=event.id, reason=one.reply.message, attempt=event.tries)
        for post_id, status in ended.items():
            counts[status] = counts.get(status, 0) + 1
            if status != "queued":
                more.append(post_id)
        return []

    return settled(landed, finish, settings().claim_expiry), more


def _delivery(landed: Completed[Called]) -> Delivery:
    event, reply = landed.item.event, landed.reply
    wait = retries.wait(reply, event.tries, random.random()).total_seconds()  # noqa: S311  -- spreads retries only
    gone = reply.outcome is Outcome.REFUSED  # 410: the receiver wants no more of it
    return Delivery(event.seq, event.lease_token, reply.outcome is Outcome.DONE, reply.message, wait, unwanted=gone)
